package wire

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// goldenSplit pins the section of a Split.
const goldenSplit = "" +
	"03" + // GivesUp, PutBack
	"0a" + "646973636f6e6e656374" + // "disconnect"
	"09" + "636f6e73656e737573" + // "consensus"
	"00" + // ""
	"0100" + // one volume
	"00f1536500000000" + // since 1700000000
	"01" // Elder

func goldenSplitBody() *Split {
	return &Split{GivesUp: true, PutBack: true, Policies: [3]string{"disconnect", "consensus", ""},
		Volumes: []SplitVolume{{Since: 1700000000, Elder: true}}}
}

func TestSplitGolden(t *testing.T) {
	if got := hex.EncodeToString(appendSplit(nil, goldenSplitBody())); got != goldenSplit {
		t.Fatalf("split\n got %s\nwant %s", got, goldenSplit)
	}
	h := goldenHelloBody()
	h.Split = goldenSplitBody()
	b, err := AppendHello(nil, h)
	if err != nil || !strings.Contains(hex.EncodeToString(b), "03002200"+goldenSplit) {
		t.Fatalf("hello %x, %v", b, err)
	}
	back, err := ParseHello(b)
	if err != nil || !reflect.DeepEqual(back, h) {
		t.Fatalf("back: %+v, %v", back, err)
	}
}

// A section that is cut, or says what cannot be, is refused.
func TestSplitRefuses(t *testing.T) {
	whole, err := hex.DecodeString(goldenSplit)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		r := reader{b: whole[:n], reason: ErrHello}
		if r.split(); !errors.Is(r.err, ErrHello) {
			t.Errorf("cut to %d bytes: %v", n, r.err)
		}
	}
	for name, change := range map[string]func(*Split){
		"volumes": func(s *Split) { s.Volumes = nil },
		"since":   func(s *Split) { s.Volumes[0].Since = -1 },
		"policy":  func(s *Split) { s.Policies[1] = strings.Repeat("x", maxPolicyBytes+1) },
	} {
		h := goldenHelloBody()
		h.Split = goldenSplitBody()
		change(h.Split)
		if _, err := AppendHello(nil, h); !errors.Is(err, ErrHello) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParseSplit: whatever is read is within its bounds, and comes back as it was.
func FuzzParseSplit(f *testing.F) {
	f.Add(appendSplit(nil, goldenSplitBody()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := reader{b: b, reason: ErrHello}
		s := r.split()
		if r.err != nil || len(s.Volumes) > MaxVolumes {
			return
		}
		again := reader{b: appendSplit(nil, s), reason: ErrHello}
		if back := again.split(); again.err != nil || !reflect.DeepEqual(back, s) {
			t.Fatalf("%+v came back as %+v, %v", s, back, again.err)
		}
	})
}
