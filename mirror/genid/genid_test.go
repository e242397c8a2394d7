package genid

import (
	"bytes"
	"encoding/hex"
	"testing"

	"pgregory.net/rapid"
)

func set(current, bitmap ID, history ...ID) Set {
	s := Set{Current: current, Bitmap: bitmap}
	copy(s.History[:], history)
	return s
}

// One line per line of DRBD's table (peers without further nodes), in its order.
func TestCompareTable(t *testing.T) {
	for _, c := range []struct {
		name       string
		mine, peer Set
		want       Verdict
	}{
		{"1 both just created", New(), New(), BothNew},
		{"2 only mine just created", New(), set(10, 0), TargetFullNew},
		{"2 even when the peer's bitmap base is JustCreated", New(), set(10, JustCreated), TargetFullNew},
		{"3 only peer's just created", set(10, 0), New(), SourceFullNew},
		{"4 equal", set(10, 0), set(10, 0), Equal},
		{"4 equal, the source missed the end of a resync", set(10, 9), set(10, 0, 9), Equal},
		{"5 mine is the peer's bitmap base", set(10, 0), set(11, 10), TargetBitmap},
		{"5 wins over 9", set(10, 0), set(11, 10, 10), TargetBitmap},
		{"7 peer's is my bitmap base", set(11, 10), set(10, 0), SourceBitmap},
		{"9 mine is in the peer's history", set(10, 0), set(12, 11, 10), TargetFull},
		{"10 peer's is in my history", set(12, 11, 10), set(10, 0), SourceFull},
		{"11 same base, both went on", set(11, 10), set(12, 10), SplitBrain},
		{"12 common history", set(21, 20, 10), set(31, 30, 10), SplitBrainFull},
		{"12 a base is in the other's history", set(21, 10), set(31, 30, 10), SplitBrainFull},
		{"13 nothing in common", set(11, 10, 9), set(21, 20, 19), Unrelated},
		{"13 both merely created, then written apart", set(11, JustCreated), set(21, JustCreated), Unrelated},
		{"contradicting bases", set(10, 11), set(11, 10), SplitBrainFull},
		{"contradicting histories", set(10, 0, 11), set(11, 0, 10), SplitBrainFull},
		{"no generation at all", Set{}, Set{}, Unrelated},
		{"no generation at the peer", New(), Set{}, Unrelated},
	} {
		if got := Compare(c.mine, c.peer); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got := Compare(c.peer, c.mine); got != c.want.Inverse() {
			t.Errorf("%s, seen from the peer: %s, want %s", c.name, got, c.want.Inverse())
		}
	}
}

func anySet() *rapid.Generator[Set] {
	id := rapid.Map(rapid.IntRange(0, 12), func(n int) ID { return ID(n) })
	return rapid.Custom(func(t *rapid.T) Set {
		s := Set{Current: id.Draw(t, "current"), Bitmap: id.Draw(t, "bitmap")}
		for i := range s.History {
			s.History[i] = id.Draw(t, "history")
		}
		return s
	})
}

func TestBothSidesAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anySet().Draw(t, "a"), anySet().Draw(t, "b")
		if ab, ba := Compare(a, b), Compare(b, a); ba != ab.Inverse() || ab == NoVerdict {
			t.Fatalf("%s against %s: %s, from the other side %s", a, b, ab, ba)
		}
	})
}

// Two copies that were in sync; either goes on alone any number of times; a
// resync brings them together. The verdict never points at the newer copy as
// target, and never calls them unrelated.
func TestLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		next := ID(100)
		a := New().Mint(next)
		a, b := resync(a, New(), &next)
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			wroteA, wroteB := rapid.IntRange(0, 3).Draw(t, "a"), rapid.IntRange(0, 3).Draw(t, "b")
			for range wroteA {
				next++
				a = a.Mint(next)
			}
			for range wroteB {
				next++
				b = b.Mint(next)
			}
			want := Equal
			switch {
			case wroteA > 0 && wroteB > 0:
				want = SplitBrain
			case wroteA > 0:
				want = SourceBitmap
			case wroteB > 0:
				want = TargetBitmap
			}
			if got := Compare(a, b); got != want {
				t.Fatalf("%s against %s: %s, want %s", a, b, got, want)
			}
			switch want {
			case SourceBitmap, SplitBrain:
				a, b = resync(a, b, &next)
			case TargetBitmap:
				b, a = resync(b, a, &next)
			}
			if Compare(a, b) != Equal || a.Bitmap != 0 || b.Bitmap != 0 {
				t.Fatalf("after the resync %s and %s are not equal", a, b)
			}
		}
	})
}

// resync plays a whole one; what is not a matter of the bitmap is sent whole.
func resync(source, target Set, next *ID) (Set, Set) {
	if v := Compare(source, target); v != SourceBitmap {
		*next++
		source = source.Rebase(*next)
	}
	target = target.Begin(source)
	source = source.Finish()
	return source, target.Adopt(source)
}

// Wherever a resync breaks, and whoever goes on alone then: the source finds
// the target by its bitmap, also when it does not know how far the target came;
// and two that both went on are found to have diverged.
func TestBrokenResync(t *testing.T) {
	for name, c := range map[string]struct{ source, target Set }{
		"by the bitmap": {set(50, 0).Mint(51), set(50, 0)},
		"all of it":     {set(50, 0).Mint(51).Rebase(52), New()},
		"again":         {set(50, 49, 48).Rebase(52), set(48, 0)},
	} {
		filled := c.target.Begin(c.source)
		done := c.source.Finish()
		for stage, at := range map[string]struct {
			source, target Set
			want           Verdict
		}{
			"it runs":                       {c.source, filled, SourceBitmap},
			"begun again":                   {c.source, filled.Begin(c.source), SourceBitmap},
			"the target knows nothing more": {done, filled, Equal},
			"the target is complete":        {done, filled.Adopt(done), Equal},
		} {
			if got := Compare(at.source, at.target); got != at.want {
				t.Errorf("%s, %s: %s, want %s", name, stage, got, at.want)
			}
			alone := at.source
			if alone.Bitmap == 0 {
				alone = alone.Mint(60)
			}
			if got := Compare(alone, at.target); got != SourceBitmap {
				t.Errorf("%s, %s, the source goes on alone: %s, want SourceBitmap", name, stage, got)
			}
			if got := Compare(alone, at.target.Mint(61)); got != SplitBrain && got != SplitBrainFull {
				t.Errorf("%s, %s, both go on alone: %s", name, stage, got)
			}
		}
	}
}

// What a resync of all left behind is no base for another: not of a target that
// was exchanged meanwhile, nor of a copy that was in line with the source once.
func TestHalfFilledCopyThatComesBack(t *testing.T) {
	before := set(50, 0, 49)
	first := before.Rebase(60)
	half := New().Begin(first)
	second := first.Rebase(70)
	for name, old := range map[string]Set{"half filled": half, "in line once": before, "older": set(49, 0)} {
		for when, source := range map[string]Set{"meanwhile": second, "afterwards": second.Finish(), "later": second.Finish().Mint(80)} {
			if got := Compare(source, old); got != SourceFull {
				t.Errorf("%s, %s: %s, want SourceFull", name, when, got)
			}
		}
	}
	forced := set(50, 49).Mint(51) // promoted by force though it had gone on alone
	if got := Compare(forced, set(49, 0).Begin(set(50, 49))); got != SourceFull {
		t.Errorf("filled from a generation that is past: %s, want SourceFull", got)
	}
}

// A full resync that is begun over and over does not make its target a stranger.
func TestManyBeginningsLeaveTheHistoryAlone(t *testing.T) {
	source, target := set(50, 49, 48), set(48, 0)
	for id := ID(60); id < 60+HistoryLen-3; id++ {
		source = source.Rebase(id)
		if got := Compare(source, target); got != SourceFull {
			t.Fatalf("%s against %s: %s", source, target, got)
		}
	}
}

func TestHistoryHasNoDuplicatesAndIsBounded(t *testing.T) {
	s := set(1000, 999)
	for id := ID(1001); id < 1020; id++ {
		s = s.Mint(id)
	}
	if s.Bitmap != 999 || s.Current != 1019 || s.History[0] != 1018 || s.History[6] != 1015 {
		t.Fatalf("after 19 generations alone: %s", s)
	}
	merged := s.Adopt(s)
	seen := map[ID]bool{}
	for _, id := range merged.History {
		if id == 0 || seen[id] || id == merged.Current {
			t.Fatalf("history after adopting itself: %s", merged)
		}
		seen[id] = true
	}
}

func TestMintRefusesOldIdentifiers(t *testing.T) {
	for _, id := range []ID{0, JustCreated, 10} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Mint(%d) on a current of 10 went through", id)
				}
			}()
			set(10, 0).Mint(id)
		}()
	}
	for _, r := range []uint64{0, 1, 2, 3, 4, 5, 1 << 63} {
		New().Mint(FromRandom(r))
	}
}

func TestMarshalGolden(t *testing.T) {
	s := set(0x1122334455667788, 4, 1, 2)
	var b [Bytes]byte
	s.Marshal(b[:])
	want := "8877665544332211" + "0400000000000000" + "0100000000000000" + "0200000000000000"
	if got := hex.EncodeToString(b[:32]); got != want || !bytes.Equal(b[32:], make([]byte, 48)) {
		t.Fatalf("marshalled to %x", b)
	}
	if back, err := Unmarshal(b[:]); err != nil || back != s {
		t.Fatalf("read back %s, %v", back, err)
	}
	if _, err := Unmarshal(b[:Bytes-1]); err == nil {
		t.Fatal("a short text was read as a set")
	}
}

func FuzzUnmarshal(f *testing.F) {
	var b [Bytes]byte
	New().Marshal(b[:])
	f.Add(b[:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Unmarshal(text)
		if err != nil {
			return
		}
		var out [Bytes]byte
		s.Marshal(out[:])
		if !bytes.Equal(out[:], text[:Bytes]) {
			t.Fatalf("%x came back as %x", text[:Bytes], out)
		}
	})
}

func TestNames(t *testing.T) {
	if len(verdictNames) != int(Unrelated)+1 || Unrelated.String() != "Unrelated" || Verdict(200).String() != "Invalid" {
		t.Fatal("verdict names are out of step")
	}
}

// A copy that did not count and was promoted by force is apart from every copy that has
// what came before, until that is filled from it; then it is as any other.
func TestForcedIsApart(t *testing.T) {
	for name, before := range map[string]Set{"in line once": set(50, 0, 49), "had gone on alone": set(50, 48, 47), "half filled": set(50, 0).Begin(set(52, 50))} {
		base := before.Bitmap
		if base == 0 {
			base = before.Current
		}
		forced := before.Force(60)
		for when, s := range map[string]Set{"at once": forced, "after it went on": forced.Mint(61), "after another force": forced.Force(62)} {
			if got := Compare(s, set(base, 0)); got != SplitBrain || !s.Forced() {
				t.Errorf("%s, %s: its base is %s", name, when, got)
			}
			if got := Compare(set(base, 0), s); got != SplitBrain {
				t.Errorf("%s, %s: seen from its base, %s", name, when, got)
			}
			if got := Compare(s, set(base, 0).Mint(70)); got != SplitBrain {
				t.Errorf("%s, %s: what was written meanwhile is %s", name, when, got)
			}
			if got := Compare(s, set(base, 0).Begin(s)); got != SourceBitmap {
				t.Errorf("%s, %s: being filled from there, %s", name, when, got)
			}
			if done := s.Finish(); done.Forced() || Compare(done.Mint(80), done) != SourceBitmap {
				t.Errorf("%s, %s: in line again, %s", name, when, done)
			}
			if all := s.Rebase(90); Compare(all, set(base, 0)) != SplitBrainFull || Compare(all, set(base, 0).Begin(all)) != SourceBitmap {
				t.Errorf("%s, %s: all is to be sent, %s", name, when, Compare(all, set(base, 0)))
			}
		}
	}
}

// However often it is forced, it is known by.
func TestManyForcesLeaveTheHistoryAlone(t *testing.T) {
	s, peer := set(50, 0, 49), set(50, 0)
	for id := ID(60); id < 60+HistoryLen; id++ {
		if s = s.Force(id); Compare(s, peer) != SplitBrain {
			t.Fatalf("%s: %s", s, Compare(s, peer))
		}
	}
}
