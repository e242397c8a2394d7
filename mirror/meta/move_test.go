package meta

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"hapair/mirror/block"
)

var mine = Identity{Cluster: "c1", Resource: "r0", Volume: 3, Node: "alpha"}

// moves: a copy with its metadata inside or outside, and the disk they go to.
func moves(t *testing.T, place Placement) (from, to *memDisk, target Placement, snap *Snapshot) {
	t.Helper()
	if place == Internal {
		from, _, snap = used(t, Internal, 16<<20, 0)
		return from, newMemDisk(NeededFor(snap.Super.DataBytes, testSlots)), External, snap
	}
	from, _, snap = used(t, External, 1<<20, 8<<20+512)
	to = newMemDisk(16 << 20) // the data
	for at := int64(0); at < 8<<20; at += 1 << 20 {
		to.data[at] = 0xda
	}
	return from, to, Internal, snap
}

func TestMove(t *testing.T) {
	for _, place := range []Placement{Internal, External} {
		from, to, target, snap := moves(t, place)
		s, err := Move(from, place, to, target, mine, false)
		if err != nil || s.Placement != target {
			t.Fatalf("%s: %v", place, err)
		}
		if _, _, err := Open(from, place, mine); !errors.Is(err, ErrNone) {
			t.Fatalf("%s: what is left there: %v", place, err)
		}
		_, after, err := Open(to, target, mine)
		if err != nil {
			t.Fatal(err)
		}
		sayTheSame(t, place.String(), snap, &after, snap.Bitmap)
		if place == External && to.data[7<<20] != 0xda {
			t.Fatal("the data are not what they were")
		}
		if _, err := Move(from, place, to, target, mine, false); err != nil {
			t.Fatalf("%s, moved again: %v", place, err)
		}
	}
}

// Cut off anywhere, some metadata are whole; a second move ends it, also where
// the old ones were used meanwhile; and nobody takes both.
func TestMoveCutOff(t *testing.T) {
	for _, c := range []struct {
		place Placement
		used  int // writes of the old superblocks before the second move
	}{{Internal, 1}, {Internal, 2}, {Internal, 3}, {External, 3}} {
		place := c.place
		for n := 0; ; n++ {
			from, to, target, snap := moves(t, place)
			to.failAfter(n)
			from.fail = func(r *block.Request) error {
				if r.Op.Changes() && to.fail != nil {
					return errTest // the old ones are still there when the new are whole
				}
				return nil
			}
			_, failed := Move(from, place, to, target, mine, false)
			to.fail, from.fail = nil, nil
			st, was, err := Open(from, place, mine)
			if err != nil {
				t.Fatalf("%s, after %d writes: %v", place, n, err)
			}
			both := false
			if _, after, err := Open(to, target, mine); err == nil {
				after.Repairs = nil // one superblock is enough
				sayTheSame(t, place.String(), snap, &after, snap.Bitmap)
				data, outer := from, &after.Super
				if place == External {
					data, outer = to, &was.Super
				}
				if err := Alone(data, outer); !errors.Is(err, ErrTwice) {
					t.Fatalf("%s, after %d writes: both places are believed: %v", place, n, err)
				}
				both = after.Super.Sequence == was.Super.Sequence+superBlocks
			}
			writes := 0
			was.Super.Token = 99 // an agent goes on with the old ones
			for range c.used {
				st.WriteSuper(was.Super, must(t, &writes))
			}
			if _, err := Move(from, place, to, target, mine, false); err != nil {
				t.Fatalf("%s, after %d writes, again: %v", place, n, err)
			}
			if _, after, err := Open(to, target, mine); err != nil || after.Super.Token != 99 {
				t.Fatalf("%s, after %d writes: token %d, %v", place, n, after.Super.Token, err)
			}
			if failed != nil && both {
				break
			}
		}
	}
}

// Cut off while the old superblocks are erased, the younger is there or none, and a
// second move ends it, also where the old one, inside, was used once meanwhile.
func TestMoveCutOffWhileItErases(t *testing.T) {
	for _, place := range []Placement{Internal, External} {
		for n := range 8 { // writes that pass; twice, for the younger is at either place
			from, to, target, snap := moves(t, place)
			st, _, err := Open(from, place, mine)
			if err != nil {
				t.Fatal(err)
			}
			writes, want := 0, uint64(1+n/4)
			for i := range want {
				snap.Super.Token = i + 1
				st.WriteSuper(snap.Super, must(t, &writes))
			}
			from.failAfter(n % 4)
			if _, err := Move(from, place, to, target, mine, false); !errors.Is(err, errTest) {
				t.Fatal(err)
			}
			from.fail = nil
			st, was, err := Open(from, place, mine)
			switch {
			case errors.Is(err, ErrNone):
			case err != nil || was.Super.Token != want:
				t.Fatalf("%s, after %d writes: token %d, want %d, %v", place, n, was.Super.Token, want, err)
			case place == Internal:
				want, was.Super.Token = 99, 99
				st.WriteSuper(was.Super, must(t, &writes))
			}
			if _, err := Move(from, place, to, target, mine, false); err != nil {
				t.Fatal(err)
			}
			if _, after, err := Open(to, target, mine); err != nil || after.Super.Token != want {
				t.Fatalf("%s, after %d writes: token %d, want %d, %v", place, n, after.Super.Token, want, err)
			}
		}
	}
}

func TestMoveRefuses(t *testing.T) {
	from, _, _, _ := moves(t, External)
	if _, err := Move(from, External, newMemDisk(8<<20+512+4096), Internal, mine, true); !errors.Is(err, ErrTooSmall) || !strings.Contains(err.Error(), "more are needed") {
		t.Errorf("no room behind the data: %v", err)
	}
	from, to, target, _ := moves(t, Internal)
	if _, err := Move(from, Internal, to, target, Identity{Resource: "other"}, true); !errors.Is(err, ErrForeign) {
		t.Errorf("those of another resource: %v", err)
	}
	p := params()
	p.Device = UUID{9}
	other := created(t, p, 1<<20)
	if _, err := Move(from, Internal, other, External, mine, false); !errors.Is(err, ErrExists) {
		t.Errorf("over other metadata: %v", err)
	}
	if _, _, err := Open(from, Internal, mine); err != nil {
		t.Errorf("after refusals: %v", err)
	}
	if _, err := Move(from, Internal, other, External, mine, true); err != nil {
		t.Errorf("by force: %v", err)
	}
	if err := Alone(newMemDisk(1<<20), &Super{Device: UUID{1}}); err != nil {
		t.Error(err)
	}
}

// Versions are gone through one by one; what cannot be is refused.
func TestConvert(t *testing.T) {
	d := external(t)
	before := bytes.Clone(d.data)
	if was, err := Convert(d, External); was != FormatVersion || err != nil || !bytes.Equal(before, d.data) {
		t.Fatalf("version %d, %v", was, err)
	}
	var done []int
	step := func(v int) func(block.Disk, Placement) error {
		return func(block.Disk, Placement) error { done = append(done, v); return nil }
	}
	steps := map[int]func(block.Disk, Placement) error{1: step(1), 2: step(2)}
	if _, err := convert(d, External, steps, 3); err != nil || len(done) != 2 || done[0] != 1 || done[1] != 2 {
		t.Fatalf("went through %v, %v", done, err)
	}
	if _, err := convert(d, External, steps, 4); !errors.Is(err, ErrVersion) {
		t.Fatalf("no step: %v", err)
	}
	d.data[8] = 77 // of a later release
	copy(d.data, resealed(d.data[:BlockBytes]))
	if _, err := Convert(d, External); !errors.Is(err, ErrVersion) {
		t.Fatalf("a later version: %v", err)
	}
}
