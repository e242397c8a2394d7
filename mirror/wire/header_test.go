package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// goldenWrite is a Write of one sector. These bytes are the protocol: a change
// here is a new Version.
const goldenWrite = "" +
	"4841504d" + // magic "HAPM"
	"01" + // version 1
	"04" + // kind Write
	"03" + // flags FUA | Resync
	"00" + // zero
	"0700" + // volume 7
	"0000" + // status OK
	"00020000" + // payload 512 bytes
	"0807060504030201" + // ID 0x0102030405060708
	"2a00000000000000" + // token 42
	"0010000000000000" + // offset 4096
	"0002000000000000" + // length 512
	"2a6ac010" + // crc32c of the payload, 512 times 0x5a
	"0000000000000000" + // zero
	"39774860" // crc32c of the 60 bytes before

func goldenMessage() Message {
	return Message{Kind: Write, Flags: FUA | Resync, Volume: 7, ID: 0x0102030405060708, Token: 42,
		Offset: 4096, Length: 512, Data: bytes.Repeat([]byte{0x5a}, 512)}
}

// goldenVerify is a question and its answer.
func goldenVerify() []Message {
	return []Message{
		{Kind: Verify, Volume: 7, ID: 9, Token: 42, Offset: 8192, Length: 4608},
		{Kind: Verified, ID: 9, Data: bytes.Repeat([]byte{0xa5}, 2*DigestBytes)},
	}
}

func TestVerifyGolden(t *testing.T) {
	for i, want := range []string{
		"4841504d01120000" + "07000000" + "00000000" + // kind Verify, volume 7
			"0900000000000000" + "2a00000000000000" + // ID, token
			"0020000000000000" + "0012000000000000" + // offset 8192, length 4608
			"00000000" + "0000000000000000" + "5a0f2b27",
		"4841504d01130000" + "00000000" + "40000000" + // kind Verified, two digests
			"0900000000000000" + "0000000000000000" +
			"0000000000000000" + "0000000000000000" +
			"6109c6ad" + "0000000000000000" + "f0493e52",
	} {
		m := goldenVerify()[i]
		frame, err := AppendFrame(nil, &m)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(frame[:HeaderBytes]); got != want {
			t.Errorf("%s\n got %s\nwant %s", m.Kind, got, want)
		}
	}
}

func TestHeaderGolden(t *testing.T) {
	m := goldenMessage()
	frame, err := AppendFrame(nil, &m)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(frame[:HeaderBytes]); got != goldenWrite {
		t.Fatalf("header\n got %s\nwant %s", got, goldenWrite)
	}
	var back Message
	n, err := ParseFrame(frame, &back)
	if err != nil || n != len(frame) || back.String() != m.String() || !bytes.Equal(back.Data, m.Data) {
		t.Fatalf("back: %v, %d bytes, %v", &back, n, err)
	}
}

// The numbers of kinds and statuses are the protocol.
func TestNumbersGolden(t *testing.T) {
	for want, kind := range []Kind{Invalid, Hello, Bitmap, BitmapDone, Write, WriteZeroes, Discard, Flush, Ack,
		SyncStart, SyncDone, InSync, State, Refuse, Ping, Pong, Read, Data, Verify, Verified} {
		if int(kind) != want {
			t.Errorf("%s is %d, was %d", kind, kind, want)
		}
	}
	for want, status := range []Status{OK, IOError, NoSpace, StaleToken, SplitBrain, Unrelated, BadGeometry,
		BadState, BadMessage, Shutdown, Congested} {
		if int(status) != want {
			t.Errorf("%s is %d, was %d", status, status, want)
		}
	}
	if FUA != 1 || Resync != 2 || NoUnmap != 4 || Memory != 8 || Ordered != 16 {
		t.Errorf("flags are %d %d %d %d %d, were 1 2 4 8 16", FUA, Resync, NoUnmap, Memory, Ordered)
	}
	if FeatureRead != 1 || FeatureVerify != 2 || FeatureProtocols != 8 {
		t.Errorf("features are %d %d %d, were 1 2 8", FeatureRead, FeatureVerify, FeatureProtocols)
	}
	if len(kindNames) != int(lastKind)+1 || len(rules) != int(lastKind)+1 || len(statusNames) != int(Congested)+1 {
		t.Error("a kind or status without a name or a rule")
	}
}

func TestCheckRefuses(t *testing.T) {
	tests := []struct {
		name    string
		m       Message
		payload int
		reason  error
	}{
		{"kind zero", Message{}, 0, ErrKind},
		{"kind of a later release", Message{Kind: lastKind + 1}, 0, ErrKind},
		{"write without payload", Message{Kind: Write, Length: 512}, 0, ErrField},
		{"write shorter than its payload", Message{Kind: Write, Length: 512}, 1024, ErrField},
		{"write too long", Message{Kind: Write, Length: MaxPayloadBytes + 512}, MaxPayloadBytes + 512, ErrTooLong},
		{"write off the sectors", Message{Kind: Write, Offset: 100, Length: 512}, 512, ErrField},
		{"write with NoUnmap", Message{Kind: Write, Flags: NoUnmap, Length: 512}, 512, ErrField},
		{"write with an unknown flag", Message{Kind: Write, Flags: 0x80, Length: 512}, 512, ErrField},
		{"write with status", Message{Kind: Write, Status: IOError, Length: 512}, 512, ErrField},
		{"discard with payload", Message{Kind: Discard, Length: 512}, 512, ErrField},
		{"discard of nothing", Message{Kind: Discard}, 0, ErrField},
		{"zeroes of half a sector", Message{Kind: WriteZeroes, Length: 256}, 0, ErrField},
		{"discard past the end of all", Message{Kind: Discard, Offset: math.MaxInt64 - 511, Length: 512}, 0, ErrField},
		{"discard that wraps", Message{Kind: Discard, Offset: math.MaxUint64 - 511, Length: 1024}, 0, ErrField},
		{"flush with a range", Message{Kind: Flush, Length: 512}, 0, ErrField},
		{"ack with payload", Message{Kind: Ack}, 8, ErrField},
		{"hello without payload", Message{Kind: Hello}, 0, ErrField},
		{"hello too long", Message{Kind: Hello}, MaxHelloBytes + 1, ErrTooLong},
		{"hello of a volume", Message{Kind: Hello, Volume: 1}, 8, ErrField},
		{"record too long", Message{Kind: InSync}, MaxRecordBytes + 1, ErrTooLong},
		{"refusal too long", Message{Kind: Refuse}, MaxTextBytes + 1, ErrTooLong},
		{"verify off the blocks", Message{Kind: Verify, Offset: 512, Length: 4096}, 0, ErrField},
		{"verify too long", Message{Kind: Verify, Length: MaxVerifyBytes + 512}, 0, ErrField},
		{"verify of nothing", Message{Kind: Verify, Offset: 4096}, 0, ErrField},
		{"verify with payload", Message{Kind: Verify, Length: 4096}, 32, ErrField},
		{"verified with half a digest", Message{Kind: Verified}, 48, ErrField},
		{"verified with more than was asked", Message{Kind: Verified}, 8224, ErrTooLong},
		{"failed with digests", Message{Kind: Verified, Status: IOError}, 32, ErrField},
		{"ping with payload", Message{Kind: Ping}, 1, ErrField},
		{"read of nothing", Message{Kind: Read}, 0, ErrField},
		{"read with payload", Message{Kind: Read, Length: 512}, 512, ErrField},
		{"read too long", Message{Kind: Read, Length: MaxPayloadBytes + 512}, 0, ErrTooLong},
		{"read past the end of all", Message{Kind: Read, Offset: math.MaxInt64 - 511, Length: 512}, 0, ErrField},
		{"data without payload", Message{Kind: Data, Length: 512}, 0, ErrField},
		{"data shorter than its payload", Message{Kind: Data, Length: 512}, 1024, ErrField},
		{"data with status", Message{Kind: Data, Status: IOError, Length: 512}, 512, ErrField},
	}
	sentences := map[string]string{}
	for _, tt := range tests {
		err := Check(&tt.m, tt.payload)
		if !errors.Is(err, tt.reason) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.reason)
			continue
		}
		if was, twice := sentences[err.Error()]; twice {
			t.Errorf("%s and %s share the sentence %q", tt.name, was, err)
		}
		sentences[err.Error()] = tt.name
	}
	if err := Check(&Message{Kind: Ack, Status: 999}, 0); err != nil {
		t.Errorf("ack with a status of a later release: %v", err)
	}
}

// Every single damaged byte of a frame is noticed, and named.
func TestDamage(t *testing.T) {
	m := goldenMessage()
	frame, err := AppendFrame(nil, &m)
	if err != nil {
		t.Fatal(err)
	}
	for i := range frame {
		frame[i] ^= 0x40
		want := ErrHeaderSum
		switch {
		case i < 4:
			want = ErrMagic
		case i == 4:
			want = ErrVersion
		case i >= HeaderBytes:
			want = ErrPayloadSum
		}
		var got Message
		if _, err := ParseFrame(frame, &got); !errors.Is(err, want) {
			t.Fatalf("byte %d damaged: %v, want %v", i, err, want)
		}
		frame[i] ^= 0x40
	}
	for n := range frame {
		if _, err := ParseFrame(frame[:n], new(Message)); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

// A header that is whole but impossible is refused before anything is
// allocated for it.
func TestImpossibleHeader(t *testing.T) {
	resum := func(h []byte) []byte {
		s := Sum(h[:60])
		h[60], h[61], h[62], h[63] = byte(s), byte(s>>8), byte(s>>16), byte(s>>24)
		return h
	}
	for name, tt := range map[string]struct {
		change func(h []byte)
		reason error
	}{
		"payload of 4 GiB":   {func(h []byte) { copy(h[12:], "\xff\xff\xff\xff") }, ErrTooLong},
		"reserved byte":      {func(h []byte) { h[7] = 1 }, ErrField},
		"reserved word":      {func(h []byte) { h[59] = 1 }, ErrField},
		"sum without bytes":  {func(h []byte) { h[5] = byte(Ping); clear(h[6:48]) }, ErrField},
		"kind out of range":  {func(h []byte) { h[5] = 200 }, ErrKind},
		"payload not Length": {func(h []byte) { h[41] = 8 }, ErrField},
	} {
		m := goldenMessage()
		frame, err := AppendFrame(nil, &m)
		if err != nil {
			t.Fatal(err)
		}
		tt.change(frame)
		if _, err := DecodeHeader(resum(frame[:HeaderBytes]), &m); !errors.Is(err, tt.reason) {
			t.Errorf("%s: %v, want %v", name, err, tt.reason)
		}
	}
}

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyMessage(t)
		frame, err := AppendFrame(nil, &m)
		if err != nil {
			t.Fatalf("%v refused: %v", &m, err)
		}
		var back Message
		n, err := ParseFrame(append(frame, "the next frame"...), &back)
		if err != nil || n != len(frame) {
			t.Fatalf("%v: %d of %d bytes, %v", &m, n, len(frame), err)
		}
		if !bytes.Equal(back.Data, m.Data) {
			t.Fatalf("%v: payload differs", &m)
		}
		back.Data, m.Data = nil, nil
		if back.Kind != m.Kind || back.Flags != m.Flags || back.Volume != m.Volume || back.Status != m.Status ||
			back.ID != m.ID || back.Token != m.Token || back.Offset != m.Offset || back.Length != m.Length {
			t.Fatalf("got %+v, want %+v", back, m)
		}
	})
}

// anyMessage draws a message that Check accepts.
func anyMessage(t *rapid.T) Message {
	m := Message{Kind: Kind(rapid.IntRange(1, int(lastKind)).Draw(t, "kind")), ID: rapid.Uint64().Draw(t, "id"), Token: rapid.Uint64().Draw(t, "token")}
	r := rules[m.Kind]
	m.Flags = Flags(rapid.Uint8().Draw(t, "flags")) & r.flags
	if r.volume {
		m.Volume = rapid.Uint16().Draw(t, "volume")
	}
	if r.state {
		m.Status = Status(rapid.Uint16().Draw(t, "status"))
	}
	if r.rng {
		m.Offset = uint64(rapid.IntRange(0, 1<<40).Draw(t, "offset")) * 512
		m.Length = uint64(rapid.IntRange(1, 64).Draw(t, "length")) * 512
	}
	n := rapid.IntRange(r.payloadMin, min(r.payloadMax, r.payloadMin+300)).Draw(t, "payload")
	switch m.Kind {
	case Write, Data:
		n = int(m.Length)
	case Verify:
		m.Offset &^= VerifyBlockBytes - 1
	case Verified:
		if n -= n % DigestBytes; m.Status != OK {
			n = 0
		}
	default: // as drawn
	}
	m.Data = bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, n)
	return m
}

func TestNoAllocations(t *testing.T) {
	m := goldenMessage()
	var h [HeaderBytes]byte
	var back Message
	if n := testing.AllocsPerRun(1000, func() {
		if err := EncodeHeader(h[:], &m); err != nil {
			t.Fatal(err)
		}
		p, err := DecodeHeader(h[:], &back)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(m.Data); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Fatalf("%v allocations per frame", n)
	}
}

func FuzzDecodeHeader(f *testing.F) {
	h, err := hex.DecodeString(goldenWrite)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(h, false)
	f.Add(h[:63], false)
	for _, m := range goldenVerify() {
		frame, err := AppendFrame(nil, &m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame[:HeaderBytes], false)
	}
	f.Add(bytes.Repeat([]byte{0}, HeaderBytes), true)
	f.Add(append([]byte("HAPM\x01\x0e"), make([]byte, 58)...), true)
	f.Fuzz(func(t *testing.T, b []byte, repair bool) {
		if b = bytes.Clone(b); repair && len(b) >= HeaderBytes { // get past the checksum
			copy(b, "HAPM\x01")
			s := Sum(b[:60])
			b[60], b[61], b[62], b[63] = byte(s), byte(s>>8), byte(s>>16), byte(s>>24)
		}
		var m Message
		p, err := DecodeHeader(b, &m)
		if err != nil {
			mustBeFormatError(t, err)
			return
		}
		if p.Bytes > MaxPayloadBytes || Check(&m, p.Bytes) != nil {
			t.Fatalf("%+v with %d bytes was let through", m, p.Bytes)
		}
	})
}

func FuzzParseFrame(f *testing.F) {
	m := goldenMessage()
	frame, err := AppendFrame(nil, &m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	f.Add(frame[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		n, err := ParseFrame(b, &m)
		if err != nil {
			mustBeFormatError(t, err)
			return
		}
		again, err := AppendFrame(nil, &m)
		if err != nil || !bytes.Equal(again, b[:n]) {
			t.Fatalf("%+v encodes to other bytes, %v", m, err)
		}
	})
}

func mustBeFormatError(t *testing.T, err error) {
	t.Helper()
	var format *FormatError
	if !errors.As(err, &format) || format.Reason == nil || strings.TrimSpace(format.Text) == "" {
		t.Fatalf("error without a reason: %v", err)
	}
}

func BenchmarkEncodeDecode4K(b *testing.B) {
	m := goldenMessage()
	m.Data = make([]byte, 4096)
	m.Length = 4096
	var h [HeaderBytes]byte
	var back Message
	b.ReportAllocs()
	for b.Loop() {
		if err := EncodeHeader(h[:], &m); err != nil {
			b.Fatal(err)
		}
		p, err := DecodeHeader(h[:], &back)
		if err != nil || p.Check(m.Data) != nil {
			b.Fatal(err)
		}
	}
}
