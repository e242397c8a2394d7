package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"hapair/mirror/state"

	"pgregory.net/rapid"
)

// goldenHello pins the payload of Hello and State.
const goldenHello = "" +
	"01" + // format 1
	"02" + // role Primary
	"03" + // Suspect, LastPrimary
	"00" + // zero
	"0500000000000000" + // features
	"02" + "7067" + // resource "pg"
	"05" + "616c706861" + // node "alpha"
	"0900000000000000" + // record: token 9
	"0700000000000000" + // tenure 7
	"05" + "616c706861" + // Primary "alpha"
	"02" + "05" + "616c706861" + "04" + "62657461" + // in sync "alpha", "beta"
	"0100" + // one volume
	"6800" + // of 104 bytes
	"0300" + // number 3
	"0000004000000000" + // 1 GiB
	"00100000" + // logical block 4096
	"07" + // UpToDate
	"03" + // AssumeClean, FullSync
	"0100000000000000" + // current
	"0200000000000000" + // bitmap
	"0300000000000000" + "0400000000000000" + "0500000000000000" + "0600000000000000" + // history
	"0700000000000000" + "0800000000000000" + "0900000000000000" + "0a00000000000000" +
	"1100000000000000" + // 17 dirty blocks
	"0100" + "0600" + "05" + "302e392e31" // section 1: release "0.9.1"

func goldenHelloBody() *HelloBody {
	return &HelloBody{
		Resource: "pg", Node: "alpha", Features: 5, Role: state.Primary, Suspect: true, LastPrimary: true,
		Record: Record{Token: 9, Tenure: 7, Primary: "alpha", InSync: []string{"alpha", "beta"}},
		Volumes: []HelloVolume{{Number: 3, SizeBytes: 1 << 30, LogicalBlockBytes: 4096, Disk: state.UpToDate,
			Gen: [10]uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, DirtyBlocks: 17, AssumeClean: true, FullSync: true}},
		Release: "0.9.1",
	}
}

func TestHelloGolden(t *testing.T) {
	b, err := AppendHello(nil, goldenHelloBody())
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != goldenHello {
		t.Fatalf("hello\n got %s\nwant %s", got, goldenHello)
	}
	back, err := ParseHello(b)
	if err != nil || !reflect.DeepEqual(back, goldenHelloBody()) {
		t.Fatalf("back: %+v, %v", back, err)
	}
}

func TestHelloCutAnywhere(t *testing.T) {
	b, err := AppendHello(nil, goldenHelloBody())
	if err != nil {
		t.Fatal(err)
	}
	whole := len(b) - 10 // a Hello without its section
	for n := range b {
		if _, err := ParseHello(b[:n]); n != whole && !errors.Is(err, ErrHello) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if h, err := ParseHello(b[:whole]); err != nil || h.Release != "" {
		t.Fatalf("a hello without sections: %+v, %v", h, err)
	}
}

// What a later release appends is skipped: in a volume, in a section, in a
// section of its own.
func TestHelloOfALaterRelease(t *testing.T) {
	later := strings.NewReplacer("6800", "6a00", "01000600", "beef"+"01000700").Replace(goldenHello)
	b, err := hex.DecodeString(later + "cc" + "ff7f0200cafe")
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseHello(b)
	if err != nil || !reflect.DeepEqual(back, goldenHelloBody()) {
		t.Fatalf("back: %+v, %v", back, err)
	}
}

// The protocol is a section with a letter; C is said by leaving it out, and a
// letter that a later release may have is taken for C, the strictest.
func TestProtocolGolden(t *testing.T) {
	for letter, want := range map[string]state.Protocol{"41": state.ProtocolA, "42": state.ProtocolB, "44": state.ProtocolC, "": state.ProtocolC} {
		b, err := hex.DecodeString(goldenHello + "02000100" + letter)
		if letter == "" {
			b, err = hex.DecodeString(goldenHello)
		}
		if err != nil {
			t.Fatal(err)
		}
		h, err := ParseHello(b)
		if err != nil || h.Protocol != want {
			t.Fatalf("%s: %+v, %v", letter, h, err)
		}
		again, err := AppendHello(nil, h)
		if err != nil || h.Protocol != state.ProtocolC && !bytes.Equal(again, b) {
			t.Errorf("%s: %x, %v", letter, again, err)
		}
	}
	if _, err := ParseHello(append(must(hex.DecodeString(goldenHello)), 2, 0, 0, 0)); !errors.Is(err, ErrHello) {
		t.Errorf("a protocol without a letter: %v", err)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestSectionsOutOfOrder(t *testing.T) {
	for _, more := range []string{"01000100" + "00", "0000" + "0000"} {
		b, err := hex.DecodeString(goldenHello + more)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseHello(b); !errors.Is(err, ErrHello) {
			t.Errorf("%s: %v", more, err)
		}
	}
}

func TestHelloRefuses(t *testing.T) {
	long := strings.Repeat("x", MaxNameBytes+1)
	for name, tt := range map[string]struct {
		change func(h *HelloBody)
		reason error
	}{
		"no resource":         {func(h *HelloBody) { h.Resource = "" }, ErrHello},
		"long node":           {func(h *HelloBody) { h.Node = long }, ErrHello},
		"role":                {func(h *HelloBody) { h.Role = 3 }, ErrHello},
		"disk state":          {func(h *HelloBody) { h.Volumes[0].Disk = 9 }, ErrHello},
		"negative size":       {func(h *HelloBody) { h.Volumes[0].SizeBytes = -1 }, ErrHello},
		"logical block 513":   {func(h *HelloBody) { h.Volumes[0].LogicalBlockBytes = 513 }, ErrHello},
		"logical block 8192":  {func(h *HelloBody) { h.Volumes[0].LogicalBlockBytes = 8192 }, ErrHello},
		"double volume":       {func(h *HelloBody) { h.Volumes = append(h.Volumes, h.Volumes[0]) }, ErrHello},
		"too many volumes":    {func(h *HelloBody) { h.Volumes = make([]HelloVolume, MaxVolumes+1) }, ErrHello},
		"long Primary":        {func(h *HelloBody) { h.Record.Primary = long }, ErrRecord},
		"nameless member":     {func(h *HelloBody) { h.Record.InSync[0] = "" }, ErrRecord},
		"long release":        {func(h *HelloBody) { h.Release = long }, ErrHello},
		"protocol":            {func(h *HelloBody) { h.Protocol = 3 }, ErrHello},
		"too many in the set": {func(h *HelloBody) { h.Record.InSync = make([]string, MaxMembers+1) }, ErrRecord},
	} {
		h := goldenHelloBody()
		tt.change(h)
		if out, err := AppendHello([]byte("x"), h); !errors.Is(err, tt.reason) || string(out) != "x" {
			t.Errorf("%s: %q, %v, want %v", name, out, err, tt.reason)
		}
	}
}

func TestLargestHelloFits(t *testing.T) {
	name := strings.Repeat("n", MaxNameBytes)
	h := &HelloBody{Resource: name, Node: name, Release: name, Protocol: state.ProtocolA, Record: Record{Primary: name}, Resize: Resize{Step: ResizeRefused, Text: strings.Repeat("x", MaxTextBytes)}}
	for range MaxMembers {
		h.Record.InSync = append(h.Record.InSync, name)
	}
	for i := range MaxVolumes {
		h.Volumes = append(h.Volumes, HelloVolume{Number: uint16(i), RoomBytes: 1})
	}
	b, err := AppendHello(nil, h)
	if err != nil || len(b) > MaxHelloBytes {
		t.Fatalf("%d bytes, limit %d, %v", len(b), MaxHelloBytes, err)
	}
	rec, err := AppendRecord(nil, &h.Record)
	if err != nil || len(rec) > MaxRecordBytes {
		t.Fatalf("record of %d bytes, limit %d, %v", len(rec), MaxRecordBytes, err)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := Record{
			Token: rapid.Uint64().Draw(t, "token"), Tenure: rapid.Uint64().Draw(t, "tenure"),
			Primary: rapid.StringN(0, -1, MaxNameBytes).Draw(t, "primary"),
			InSync:  rapid.SliceOfN(rapid.StringN(1, -1, MaxNameBytes), 0, MaxMembers).Draw(t, "in sync"),
		}
		b, err := AppendRecord(nil, &rec)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(rec.InSync) == 0 {
			rec.InSync = nil
		}
		if !reflect.DeepEqual(*back, rec) {
			t.Fatalf("got %+v, want %+v", *back, rec)
		}
	})
}

func FuzzParseHello(f *testing.F) {
	b, err := hex.DecodeString(goldenHello)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:40])
	f.Add(append(b, 2, 0, 1, 0, 'A'))
	f.Add([]byte{2})
	resizing, err := AppendHello(nil, resizingBody())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(resizing)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHello(b)
		if err != nil {
			mustBeFormatError(t, err)
			return
		}
		again, err := AppendHello(nil, h)
		if err != nil {
			t.Fatalf("%+v was read but cannot be written: %v", h, err)
		}
		back, err := ParseHello(again)
		if err != nil || !reflect.DeepEqual(back, h) {
			t.Fatalf("got %+v, want %+v, %v", back, h, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	b, err := AppendRecord(nil, &goldenHelloBody().Record)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:17])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseRecord(b); err != nil {
			mustBeFormatError(t, err)
		}
	})
}
