package story

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestStampTexts(t *testing.T) {
	s := At(time.UnixMilli(1_700_000_000_123)) + 7
	if s.String() != "1700000000123.00007" || s.Time().UnixMilli() != 1_700_000_000_123 {
		t.Error(s, s.Time())
	}
	if At(time.Unix(-5, 0)) != 0 || Heard(9, MaxStamp+1) != 9 || Heard(9, 12) != 12 || Next(5, time.Unix(0, 0)) != 6 {
		t.Error("bounds")
	}
}

// act is one node of the causality test.
type act struct {
	clock Stamp
	wall  time.Time
	seq   uint64
	knows map[[2]uint64]bool // (node, seq) that happened before whatever it does next
}

// However wrong and jumpy the clocks are: what a node did before another one
// heard of it is told before what that one did afterwards.
func TestOrderIsCausal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"alpha", "beta", "gamma"}
		nodes := make([]act, len(names))
		for i := range nodes {
			nodes[i] = act{wall: time.UnixMilli(rapid.Int64Range(0, 2e12).Draw(t, "wall")), knows: map[[2]uint64]bool{}}
		}
		var all []Entry
		before := map[[2]uint64]map[[2]uint64]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, 2).Draw(t, "node")
			n := &nodes[i]
			n.wall = n.wall.Add(time.Duration(rapid.Int64Range(-5000, 5000).Draw(t, "jump")) * time.Millisecond)
			if rapid.Bool().Draw(t, "hears") {
				from := &nodes[rapid.IntRange(0, 2).Draw(t, "from")]
				n.clock = Heard(n.clock, from.clock)
				for k := range from.knows {
					n.knows[k] = true
				}
				continue
			}
			n.clock = Next(n.clock, n.wall)
			n.seq++
			key := [2]uint64{uint64(i), n.seq}
			before[key] = map[[2]uint64]bool{}
			for k := range n.knows {
				before[key][k] = true
			}
			n.knows[key] = true
			all = append(all, Entry{Stamp: n.clock, Wall: n.wall.UnixNano(), Node: names[i], Life: 1, Seq: n.seq, Kind: "role"})
		}
		told := Tell(shuffled(t, all))
		if len(told) != len(all) {
			t.Fatalf("%d told of %d", len(told), len(all))
		}
		later := map[[2]uint64]bool{}
		for _, e := range slices.Backward(told) {
			key := [2]uint64{uint64(slices.Index(names, e.Node)), e.Seq}
			for k := range before[key] {
				if later[k] {
					t.Fatalf("%v is told before %v, which it knew of", key, k)
				}
			}
			later[key] = true
		}
	})
}

func shuffled(t *rapid.T, in []Entry) []Entry {
	out := append(slices.Clone(in), in[:len(in)/2]...) // half of them twice
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// The story does not depend on who tells it, and its gaps are exactly what was
// taken out behind the first entry of a node.
func TestStoryOfParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var whole, kept []Entry
		var want []Gap
		for _, node := range []string{"alpha", "beta"} {
			stamp, first := Stamp(rapid.Uint64Range(0, 50).Draw(t, "begin")), true
			for of := uint64(1); of <= 2; of++ {
				open := uint64(0) // first number of a gap under way
				for seq := uint64(1); seq <= 12; seq++ {
					stamp += Stamp(rapid.Uint64Range(1, 9).Draw(t, "step"))
					e := Entry{Stamp: stamp, Node: node, Life: of, Seq: seq, Kind: "k"}
					whole = append(whole, e)
					if rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
						if open == 0 && !first {
							open = seq
						}
						continue
					}
					if open != 0 {
						want = append(want, Gap{Node: node, Life: of, From: open, To: seq - 1, Before: stamp})
					}
					open, first = 0, false
					kept = append(kept, e)
				}
			}
		}
		told := Tell(shuffled(t, kept))
		if d := cmp.Diff(Tell(kept), told); d != "" {
			t.Fatalf("another order tells another story:\n%s", d)
		}
		if d := cmp.Diff(told, Tell(append(shuffled(t, told), told...))); d != "" {
			t.Fatalf("twice is not once:\n%s", d)
		}
		slices.SortStableFunc(want, func(a, b Gap) int {
			return compare(&Entry{Stamp: a.Before, Node: a.Node}, &Entry{Stamp: b.Before, Node: b.Node})
		})
		if d := cmp.Diff(want, Gaps(told)); d != "" {
			t.Fatalf("gaps (-want +got):\n%s", d)
		}
		if g := Gaps(Tell(whole)); len(g) != 0 {
			t.Fatalf("gaps in a whole story: %v", g)
		}
	})
}

// Seen is a set, whatever the order; of a life with too many holes the oldest
// are forgotten, never an entry that was added.
func TestSeenAgainstSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Seen
		model := map[life]map[uint64]bool{}
		top := rapid.SampledFrom([]uint64{20, 1000}).Draw(t, "top")
		for range rapid.IntRange(1, 300).Draw(t, "n") {
			key := life{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "node"), rapid.Uint64Range(1, 3).Draw(t, "life")}
			seq := rapid.Uint64Range(1, top).Draw(t, "seq")
			if model[key] == nil {
				model[key] = map[uint64]bool{}
			}
			fresh := s.Add(key.node, key.life, seq)
			if fresh && model[key][seq] || !fresh && !model[key][seq] && top == 20 {
				t.Fatalf("%v/%d: fresh is %v", key, seq, fresh)
			}
			model[key][seq] = true
		}
		again := SeenOf(s.List())
		for key, seqs := range model {
			for seq := range seqs {
				if !s.Has(key.node, key.life, seq) || !again.Has(key.node, key.life, seq) {
					t.Fatalf("%v/%d is forgotten", key, seq)
				}
			}
			if top == 20 && (s.Has(key.node, key.life, 21) || len(s.lives[key]) > 10) {
				t.Fatalf("%v: %v", key, s.lives[key])
			}
			if len(s.lives[key]) > MaxSpans {
				t.Fatalf("%d spans", len(s.lives[key]))
			}
		}
	})
}

func TestSeenIsBounded(t *testing.T) {
	var s Seen
	for i := range uint64(MaxLives + 10) {
		s.Add("a", i+1, 1)
	}
	if n := len(s.List()); n != MaxLives || s.Has("a", 1, 1) || !s.Has("a", MaxLives+10, 1) {
		t.Errorf("%d lives", n)
	}
}

// goldenEntries are what testdata/release-1.bin holds.
func goldenEntries() []Entry {
	return []Entry{
		{Stamp: At(time.UnixMilli(1_700_000_000_123)) + 7, Wall: 1_700_000_000_123_456_789, Node: "alpha", Life: 1 << 52, Seq: 1, Kind: "agent", Text: "the agent runs"},
		{Stamp: At(time.UnixMilli(1_700_000_000_124)), Wall: 1_699_999_999_000_000_000, Node: "alpha", Life: 1 << 52, Seq: 2, Kind: "role", Resource: "pg", Text: "promoted pg on alpha",
			Fields: map[string]string{"took": "1.2s"}, Skew: -1_000_000_000},
	}
}

func goldenBytes(t testing.TB) []byte {
	b := Header()
	for _, e := range goldenEntries() {
		var err error
		if b, err = Append(b, &e); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// The bytes are those that were written once, and mean the same.
func TestGoldenBytes(t *testing.T) {
	path := filepath.Join("testdata", "version-1.bin")
	want, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && os.Getenv("HAPAIR_UPDATE") != "" {
		want = goldenBytes(t)
		err = os.WriteFile(path, want, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(goldenBytes(t), want) {
		t.Error("what is written today differs from what was")
	}
	got, whole, err := Read(want)
	if d := cmp.Diff(goldenEntries(), got); err != nil || whole != len(want) || d != "" {
		t.Errorf("%v, %d of %d bytes:\n%s", err, whole, len(want), d)
	}
}

// Wherever a crash cuts the file, or a bit of it rots, what precedes is read and
// the rest is told to be torn.
func TestTornAnywhere(t *testing.T) {
	b := goldenBytes(t)
	ends := map[int]int{HeaderBytes: 0}
	one, err := Append(Header(), &goldenEntries()[0])
	if err != nil {
		t.Fatal(err)
	}
	ends[len(one)], ends[len(b)] = 1, 2
	for n := range len(b) {
		got, whole, err := Read(b[:n])
		if count, clean := ends[n]; clean != (err == nil) || clean && len(got) != count || ends[whole] != len(got) {
			t.Fatalf("cut at %d: %d entries, %d whole, %v", n, len(got), whole, err)
		}
		rotten := slices.Clone(b)
		rotten[n] ^= 0x10
		got, whole, err = Read(rotten)
		if err == nil || !errors.Is(err, ErrTorn) || len(got) > 1 || whole > n {
			t.Fatalf("bit of byte %d: %d entries, %d whole, %v", n, len(got), whole, err)
		}
	}
}

func TestAnotherVersion(t *testing.T) {
	if got, whole, err := Read(append(headerOf(fileVersion+1), 1, 2, 3)); !errors.Is(err, ErrVersion) || whole != 0 || got != nil {
		t.Error(got, whole, err)
	}
}

func TestClip(t *testing.T) {
	e := Entry{Node: "alpha", Life: 1, Seq: 1, Kind: "k", Text: "ä" + string(bytes.Repeat([]byte("ä"), MaxText)), Fields: map[string]string{"x": string(make([]byte, MaxText+1))}}
	e.Clip()
	if err := e.Check(); err != nil || len(e.Text) != MaxText || len(e.Fields) != 1 {
		t.Error(err, len(e.Text), len(e.Fields))
	}
	if _, err := Append(nil, &e); err != nil {
		t.Error(err)
	}
	e.Text = strings.Repeat("€", MaxText)
	e.Clip()
	if len(e.Text) != MaxText/3*3 {
		t.Error("cut inside a letter:", len(e.Text))
	}
}

func FuzzRead(f *testing.F) {
	f.Add(goldenBytes(f))
	f.Add(Header())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, whole, err := Read(b)
		if whole > len(b) || err == nil && whole != len(b) {
			t.Fatalf("%d whole of %d, %v", whole, len(b), err)
		}
		if err != nil && !errors.Is(err, ErrTorn) && !errors.Is(err, ErrVersion) {
			t.Fatalf("untyped: %v", err)
		}
		if err != nil {
			return
		}
		out := Header()
		for i := range got {
			if out, err = Append(out, &got[i]); err != nil {
				t.Fatal(err)
			}
		}
		if again, _, err := Read(out); err != nil || !cmp.Equal(again, got) {
			t.Fatalf("not the same again: %v", err)
		}
	})
}
