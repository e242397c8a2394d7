package meta

import (
	"errors"
	"slices"
	"testing"

	"hapair/mirror/actlog"
)

// unsavedAt is marked in memory only, in the extent that is hot: after a crash it
// counts for that.
const unsavedAt = 5 << 20

// Marks that were in memory only are on disk with the new size, on whichever page.
func TestRemakeSavesEveryPage(t *testing.T) {
	for name, c := range remakes {
		d, st, snap := used(t, c.place, c.device, c.from)
		d.grow(c.grown)
		to := c.to
		if to == 0 {
			to = st.Room(c.grown)
		}
		snap.Bitmap.Set(unsavedAt, 1)
		r := remade(snap, to)
		if err := st.Remake(r); err != nil {
			t.Fatal(name, err)
		}
		_, after, err := Open(d, c.place, Identity{LastEnd: c.device})
		if err != nil {
			t.Fatal(name, err)
		}
		sayTheSame(t, name, snap, &after, r.Bitmap)
	}
}

// Cut off anywhere, a mark that was in memory only is on disk, or its extent is hot.
func TestRemakeCutOffWithMarksInMemory(t *testing.T) {
	for name, c := range remakes {
		for n, done := 0, false; !done; n++ {
			d, st, snap := used(t, c.place, c.device, c.from)
			d.grow(c.grown)
			to := c.to
			if to == 0 {
				to = st.Room(c.grown)
			}
			snap.Bitmap.Set(unsavedAt, 1)
			r := remade(snap, to)
			d.failAfter(n)
			done = st.Remake(r) == nil
			d.fail = nil
			_, after, err := Open(d, c.place, Identity{LastEnd: c.device})
			if err != nil {
				t.Fatalf("%s, after %d writes: %v", name, n, err)
			}
			foundWhole(t, name, snap, &after, r.Bitmap)
		}
	}
}

// next makes another extent hot, durably, as a volume in use does.
func next(t *testing.T, st *Store, log *actlog.Log, extent int64) {
	t.Helper()
	log.Acquire(extent*actlog.ExtentBytes, 1)
	tx, ok, _ := log.Prepare(0, func(uint32) bool { return true })
	if !ok {
		t.Fatal("no transaction")
	}
	n := 0
	st.WriteActivity(tx, must(t, &n))
	log.Commit(tx)
}

// The activity log goes on after a remake, and after one that was refused: however
// few transactions follow, the ring is whole.
func TestLogGoesOnAfterRemake(t *testing.T) {
	for name, c := range remakes {
		for more := range int64(4) {
			d, st, snap := used(t, c.place, c.device, c.from)
			d.grow(c.grown)
			to := c.to
			if to == 0 {
				to = st.Room(c.grown)
			}
			if err := st.Remake(remade(snap, 64<<30)); err == nil {
				t.Fatal("made anew for what the device cannot hold")
			}
			goesOn(t, name+", refused", d, st, snap, c.device, more)
			if err := st.Remake(remade(snap, to)); err != nil {
				t.Fatal(name, err)
			}
			snap.Log.Restated()
			goesOn(t, name, d, st, snap, c.device, more)
		}
	}
}

// goesOn makes some more extents hot and wants them, and no repair, found.
func goesOn(t *testing.T, name string, d *memDisk, st *Store, snap *Snapshot, lastEnd, more int64) {
	t.Helper()
	var want []uint32
	for range more {
		next(t, st, snap.Log, int64(snap.Log.Count())+1)
	}
	snap.Log.Hot(func(e uint32) { want = append(want, e) })
	slices.Sort(want)
	_, after, err := Open(d, snap.Super.Placement, Identity{LastEnd: lastEnd})
	if err != nil || len(after.Repairs) > 0 || !slices.Equal(after.HotExtents, want) {
		t.Fatalf("%s, %d transactions later: hot %v, want %v, repairs %v, %v", name, more, after.HotExtents, want, after.Repairs, err)
	}
}

// A remake that stops between two blocks of the ring leaves a whole one.
func TestRemakeCutOffInTheRing(t *testing.T) {
	for name, c := range remakes {
		for n, done := 0, false; !done; n++ {
			d, st, snap := used(t, c.place, c.device, c.from)
			d.grow(c.grown)
			for e := range int64(5) {
				next(t, st, snap.Log, e+2)
			}
			to := c.to
			if to == 0 {
				to = st.Room(c.grown)
			}
			d.failAfter(n)
			err := st.Remake(remade(snap, to))
			if done = err == nil; !done && !errors.Is(err, errTest) {
				t.Fatal(name, err)
			}
			d.fail = nil
			_, after, err := Open(d, c.place, Identity{LastEnd: c.device})
			damaged := slices.ContainsFunc(after.Repairs, notOfSuper)
			if err != nil || damaged || !slices.Equal(after.HotExtents, []uint32{1, 2, 3, 4, 5, 6}) {
				t.Fatalf("%s, after %d writes: hot %v, repairs %v, %v", name, n, after.HotExtents, after.Repairs, err)
			}
		}
	}
}
