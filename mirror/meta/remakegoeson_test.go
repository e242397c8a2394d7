package meta

import "testing"

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
