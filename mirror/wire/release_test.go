package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"hapair/mirror/state"
	"hapair/test/release"
)

// lastKindOf0 is the highest kind of message that release 0 knew.
const lastKindOf0 = Verified

// hellosOf0 says everything that release 0 could say in a Hello.
func hellosOf0() map[string]*HelloBody {
	full := &HelloBody{Resource: "pg", Node: "alpha", Role: state.Primary, Suspect: true, LastPrimary: true, SyncPaused: true, Features: FeatureRead | FeatureVerify,
		Record: Record{Token: 0x1122334455667788, Tenure: 0x99, Primary: "alpha", InSync: []string{"alpha", "beta"}}}
	for i := range 2 {
		v := HelloVolume{Number: uint16(3 + i), SizeBytes: 64<<20 + 512*int64(i), LogicalBlockBytes: 512 << i, Disk: state.UpToDate - state.Disk(i), DirtyBlocks: 7 + uint64(i),
			AssumeClean: i == 0, FullSync: i == 1}
		for j := range v.Gen {
			v.Gen[j] = uint64(0x0101010101010101 * (i + j + 1))
		}
		full.Volumes = append(full.Volumes, v)
	}
	return map[string]*HelloBody{"full": full, "least": {Resource: "r", Node: "b"}}
}

// framesOf0 is a message of each kind, as release 0 sent them.
func framesOf0(t *testing.T) []Message {
	hello, err := AppendHello(nil, hellosOf0()["full"])
	if err != nil {
		t.Fatal(err)
	}
	rec, err := AppendRecord(nil, &hellosOf0()["full"].Record)
	if err != nil {
		t.Fatal(err)
	}
	sector := bytes.Repeat([]byte{0xa5, 0x5a}, 256)
	return []Message{
		{Kind: Hello, Token: 9, Data: hello},
		{Kind: Bitmap, Token: 9, Volume: 3, Offset: 2, Length: 3, Data: []byte{1, 2, 0x80}},
		{Kind: BitmapDone, Token: 9},
		{Kind: Write, Flags: FUA | Resync, Volume: 3, ID: 0x10002, Token: 9, Offset: 4096, Length: 512, Data: sector},
		{Kind: WriteZeroes, Flags: NoUnmap, Volume: 3, ID: 0x10003, Token: 9, Offset: 8192, Length: 1 << 20},
		{Kind: Discard, Volume: 3, ID: 0x10004, Token: 9, Offset: 8192, Length: 1 << 30},
		{Kind: Flush, Flags: Resync, Volume: 3, ID: 0x10005, Token: 9},
		{Kind: Ack, Volume: 3, Status: IOError, ID: 0x10002, Token: 9, Offset: 4096, Length: 512},
		{Kind: SyncStart, Token: 9},
		{Kind: SyncDone, ID: ^uint64(0), Token: 9, Data: hello},
		{Kind: InSync, Token: 9, Data: rec},
		{Kind: State, Token: 9, Data: hello},
		{Kind: Refuse, Status: StaleToken, Token: 10, Data: []byte("a higher token was seen")},
		{Kind: Ping, ID: 5},
		{Kind: Pong, ID: 5},
		{Kind: Read, Volume: 3, ID: 0x10006, Token: 9, Offset: 512, Length: 1024},
		{Kind: Data, Volume: 3, ID: 0x10006, Offset: 512, Length: 512, Data: sector},
		{Kind: Verify, Volume: 3, ID: 0x10007, Token: 9, Offset: 4096, Length: 8192},
		{Kind: Verified, ID: 0x10007, Data: AppendDigests(nil, make([]byte, 8192))},
	}
}

// Every message that release 0 sent means the same today; and what today's release
// sends, where it says no more, are the bytes that release 0 reads.
func TestFramesOfRelease0(t *testing.T) {
	want := framesOf0(t)
	frozen := release.Parse(t, release.Frozen(t, "0", "frames.txt", func() []byte {
		var n release.Named
		for i := range want {
			b, err := AppendFrame(nil, &want[i])
			if err != nil {
				t.Fatal(err)
			}
			n.Add(want[i].Kind.String(), b)
		}
		return n.Lines()
	}))
	if len(frozen) != int(lastKindOf0) {
		t.Fatalf("%d kinds, release 0 had %d", len(frozen), lastKindOf0)
	}
	for i, f := range frozen {
		var got Message
		p, err := DecodeHeader(f.Bytes, &got)
		if err == nil {
			err = p.Check(f.Bytes[HeaderBytes:])
		}
		if err != nil {
			t.Errorf("%s is not read any more: %v", f.Name, err)
			continue
		}
		if got.Data = f.Bytes[HeaderBytes:]; len(got.Data) == 0 {
			got.Data = nil
		}
		if int(got.Kind) != i+1 || got.Kind.String() != f.Name || !reflect.DeepEqual(got, want[i]) {
			t.Errorf("%s means something else:\n%+v\nwas\n%+v", f.Name, got, want[i])
		}
		if b, err := AppendFrame(nil, &want[i]); err != nil || !bytes.Equal(b, f.Bytes) {
			t.Errorf("%s is sent otherwise: %v\n%x\nwas\n%x", f.Name, err, b, f.Bytes)
		}
	}
}

// A Hello of release 0 says the same today. What is said beyond it comes after it:
// release 0 skips what follows the volumes.
func TestHelloOfRelease0(t *testing.T) {
	bodies := hellosOf0()
	frozen := release.Parse(t, release.Frozen(t, "0", "hello.txt", func() []byte {
		var n release.Named
		for _, name := range []string{"full", "least"} {
			b, err := AppendHello(nil, bodies[name])
			if err != nil {
				t.Fatal(err)
			}
			n.Add(name, b)
		}
		return n.Lines()
	}))
	for _, f := range frozen {
		got, err := ParseHello(f.Bytes)
		if err != nil || !reflect.DeepEqual(got, bodies[f.Name]) {
			t.Errorf("%s: %v\n%+v\nwas\n%+v", f.Name, err, got, bodies[f.Name])
			continue
		}
		if b, err := AppendHello(nil, got); err != nil || !bytes.HasPrefix(b, f.Bytes) {
			t.Errorf("%s: %v: what release 0 said does not come first:\n%x\nwas\n%x", f.Name, err, b, f.Bytes)
		}
	}
}

// A frame of another version ends with a sentence that says what both speak.
func TestFrameOfAnotherVersion(t *testing.T) {
	for _, v := range []byte{OldestVersion - 1, Version + 1} {
		f := release.Parse(t, release.Frozen(t, "0", "frames.txt", nil))[0].Bytes
		f[4] = v
		_, err := DecodeHeader(f, new(Message))
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "this release reads 1 to 1") {
			t.Errorf("version %d: %v", v, err)
		}
	}
}
