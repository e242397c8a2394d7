package meta

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew; a change of them is a change of the format")

var goldenUUID = UUID{0xde, 0xad, 0xbe, 0xef, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// golden returns one block of each kind, every field distinct.
func golden(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, place := range []Placement{Internal, External} {
		s := Super{
			Device: goldenUUID, Placement: place, DataBytes: 1<<40 - 512, ActivitySlots: actlog.DefaultSlots,
			Cluster: "cluster", Resource: "resource", Volume: 0x1234, Node: "alpha", Peer: "beta",
			Generations: genid.Set{Current: 0x1111111111111111, Bitmap: 0x2222222222222222, History: [genid.HistoryLen]genid.ID{0x33, 0x44}},
			Disk:        state.UpToDate, Flags: Clean | WasPrimary, Token: 0x5555555555555555, Sequence: 0x66,
		}
		l, err := layoutOf(place, 1<<40+NeededFor(s.DataBytes, s.ActivitySlots), s.DataBytes, s.ActivitySlots)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, BlockBytes)
		if err := encodeSuper(b, &s, &l); err != nil {
			t.Fatal(err)
		}
		out["super-"+place.String()] = b
		s.Since, s.Elder = 1700000000, true
		b = make([]byte, BlockBytes)
		if err := encodeSuper(b, &s, &l); err != nil {
			t.Fatal(err)
		}
		out["super-parted"] = b
	}
	b := make([]byte, BlockBytes)
	tx := actlog.Transaction{Number: 0x77, ContextStart: 9, Context: []uint32{0x1000, actlog.Free, 0x3000}}
	tx.Updates = []actlog.Update{{Slot: 0x0102, Extent: 0x03040506}, {Slot: 7, Extent: actlog.Free}}
	if err := encodeActivity(b, goldenUUID, actlog.DefaultSlots, tx); err != nil {
		t.Fatal(err)
	}
	out["activity"] = b
	b = make([]byte, BlockBytes)
	payload := make([]byte, dirty.PageBytes)
	payload[0], payload[dirty.PageBytes-1] = 0x88, 0x99
	if err := encodePage(b, goldenUUID, 0x99, payload); err != nil {
		t.Fatal(err)
	}
	out["page"] = b
	return out
}

// dump writes a block in lines of 32 bytes, without those of zeroes only.
func dump(b []byte) string {
	var out strings.Builder
	for at := 0; at < len(b); at += 32 {
		if line := b[at : at+32]; !bytes.Equal(line, zeroes[:32]) {
			out.WriteString(hex.EncodeToString([]byte{byte(at >> 8), byte(at)}) + " " + hex.EncodeToString(line) + "\n")
		}
	}
	return out.String()
}

func TestGolden(t *testing.T) {
	for name, b := range golden(t) {
		path := filepath.Join("testdata", name+".hex")
		if *rewrite {
			if err := os.WriteFile(path, []byte(dump(b)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := dump(b); got != string(want) {
			t.Errorf("%s: the format changed:\n%s", name, got)
		}
	}
}

func TestConstantsOfTheFormat(t *testing.T) {
	if headerBytes != 48 || superBytes != 416 || activityMax != 3996 || dirty.PageBytes != 3968 || genid.Bytes != 80 {
		t.Error("the size of a block's contents changed: that is another format version")
	}
	if Needed(1<<40) != (2+9+8457)*4096 {
		t.Errorf("1 TiB needs %d bytes", Needed(1<<40))
	}
}

// Every bit of every block matters.
func TestEveryFlippedBitIsSeen(t *testing.T) {
	for name, b := range golden(t) {
		for bit := range BlockBytes * 8 {
			if bit%37 != 0 && bit > 1000 {
				continue
			}
			bent := bytes.Clone(b)
			bent[bit/8] ^= 1 << (bit % 8)
			_, _, err := unseal(bent, blockType(b[10]))
			if !errors.Is(err, ErrTorn) && !errors.Is(err, ErrNone) {
				t.Fatalf("%s: bit %d: %v", name, bit, err)
			}
		}
	}
}

// resealed makes fuzzed bytes pass the checksum, so that what lies behind it is
// reached.
func resealed(b []byte) []byte {
	if len(b) != BlockBytes {
		return b
	}
	b = bytes.Clone(b)
	copy(b, magic)
	sum := checksum(b)
	copy(b[40:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
	return b
}

// known reports whether a decoder's error is one of those it promises.
func known(err error) bool {
	for _, want := range []error{ErrNone, ErrTorn, ErrVersion, ErrMalformed} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}

// seed adds the golden blocks, whole and bent.
func seed(f *testing.F) {
	for _, b := range golden(f) {
		f.Add(b)
		for _, at := range []int{8, 10, 12, 32, headerBytes, headerBytes + 8, headerBytes + 44, headerBytes + 60, headerBytes + 160} {
			bent := bytes.Clone(b)
			bent[at] ^= 0xff
			f.Add(bent)
		}
	}
	f.Add([]byte{})
	f.Add(make([]byte, BlockBytes))
}

func FuzzSuper(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = resealed(b)
		s, l, err := decodeSuper(b)
		if err != nil {
			if !known(err) {
				t.Fatal(err)
			}
			return
		}
		out := make([]byte, BlockBytes)
		if err := encodeSuper(out, &s, &l); err != nil {
			t.Fatal(err)
		}
		if s2, l2, err := decodeSuper(out); err != nil || s2 != s || l2 != l {
			t.Fatalf("%+v came back as %+v, %v", s, s2, err)
		}
	})
}

func FuzzActivity(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = resealed(b)
		device, tx, err := decodeActivity(b, actlog.DefaultSlots)
		if err != nil {
			if !known(err) {
				t.Fatal(err)
			}
			return
		}
		if _, err := actlog.Hotset([]actlog.Transaction{tx}, actlog.DefaultSlots); err != nil &&
			!errors.Is(err, actlog.ErrCorrupt) && !errors.Is(err, actlog.ErrIncomplete) {
			t.Fatal(err)
		}
		out := make([]byte, BlockBytes)
		if err := encodeActivity(out, device, actlog.DefaultSlots, tx); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out[headerBytes:headerBytes+activityHead], b[headerBytes:headerBytes+activityHead]) {
			t.Fatal("the head of a transaction came back different")
		}
	})
}

func FuzzPage(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, payload, err := decodePage(resealed(b), 0x99)
		if err != nil && !known(err) {
			t.Fatal(err)
		}
		if err == nil && len(payload) != dirty.PageBytes {
			t.Fatalf("a page of %d bytes", len(payload))
		}
	})
}

func FuzzRecognise(f *testing.F) {
	for _, text := range []string{"XFSB", "LUKS\xba\xbe", "LABELONE", "\xeb\x52\x90NTFS    ", "\xeb\x76\x90EXFAT   "} {
		f.Add([]byte(text), 0)
	}
	f.Add([]byte("EFI PART"), 512)
	f.Add([]byte("SWAPSPACE2"), 4086)
	f.Add([]byte{0x53, 0xef}, 1024+0x38)
	f.Add([]byte("_BHRfS_M"), 64<<10+0x40)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		if at < 0 || at > headBytes {
			return
		}
		head := make([]byte, headBytes)
		copy(head[at:], b)
		if c, ok := Recognise(head); ok && (c.Kind == "" || c.Bytes <= 0) {
			t.Fatalf("recognised %+v", c)
		}
	})
}

// The space of a device is divided so that nothing is wasted and everything fits.
func TestDataBytesFor(t *testing.T) {
	const unit = dirty.PageExtents * dirty.ExtentBytes
	for _, slots := range []int{2, 1000, actlog.DefaultSlots, actlog.MaxSlots} {
		for _, around := range []int64{0, unit, 2 * unit, 7 * unit, 1 << 40, 100 << 40} {
			for d := int64(-6); d <= 6; d++ {
				size := around + NeededFor(around, slots) + d*BlockBytes
				n := DataBytesFor(size, slots)
				if n <= 0 {
					if size > NeededFor(BlockBytes, slots)+BlockBytes {
						t.Fatalf("%d bytes, %d slots: nothing is left", size, slots)
					}
					continue
				}
				if n+NeededFor(n, slots) > size {
					t.Fatalf("%d bytes, %d slots: %d of data and %d of metadata do not fit", size, slots, n, NeededFor(n, slots))
				}
				if more := n + 2*BlockBytes; more+NeededFor(more, slots) <= size {
					t.Fatalf("%d bytes, %d slots: %d would fit, %d is used", size, slots, more, n)
				}
			}
		}
	}
}
