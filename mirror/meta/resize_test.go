package meta

import (
	"errors"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/genid"
)

// what is resized in these tests: where its metadata lies, and to which size.
// The last overlaps what was there.
var resizes = map[string]struct {
	place    Placement
	from, to int64
}{
	"external":           {External, testData, testData / 3 / 512 * 512},
	"internal":           {Internal, 0, 40 << 20},
	"internal, a little": {Internal, 0, 64<<20 - 256<<10},
}

func resizable(t *testing.T, place Placement, from int64) *memDisk {
	t.Helper()
	p := params()
	p.Placement, p.DataBytes = place, from
	if place == External {
		return created(t, p, NeededFor(from, testSlots))
	}
	return created(t, p, 64<<20)
}

func TestResize(t *testing.T) {
	for name, c := range resizes {
		d := resizable(t, c.place, c.from)
		st, snap, err := Open(d, c.place, Identity{})
		if err != nil {
			t.Fatal(err)
		}
		if snap.Super.DataBytes <= c.to {
			t.Fatalf("%s: %d bytes before, %d after", name, snap.Super.DataBytes, c.to)
		}
		super := snap.Super
		super.Token = 7
		if err := st.Resize(super, c.to); err != nil {
			t.Fatal(name, err)
		}
		n := 0
		super.DataBytes, super.Token = c.to, 8
		st.WriteSuper(super, must(t, &n))
		st.WriteBitmapPages(0, make([]byte, len(snap.Bitmap.Page(0, nil))), must(t, &n))
		_, after, err := Open(d, c.place, Identity{})
		if err != nil {
			t.Fatal(name, err)
		}
		if s := after.Super; n != 2 || s.DataBytes != c.to || s.Token != 8 || s.Device != snap.Super.Device || s.Generations != genid.New() || len(after.Repairs) > 0 {
			t.Fatalf("%s: %+v, repairs %v", name, s, after.Repairs)
		}
		if after.Bitmap.SizeBytes() != c.to || after.Bitmap.Count() != 0 {
			t.Fatalf("%s: the bitmap is for %d bytes, %d blocks are set", name, after.Bitmap.SizeBytes(), after.Bitmap.Count())
		}
		if err := st.Resize(super, 1<<40); !errors.Is(err, ErrTooSmall) {
			t.Fatalf("%s: made larger than its place: %v", name, err)
		}
	}
}

// Cut off anywhere, it has the old size or the new one, and opens.
func TestResizeCutOff(t *testing.T) {
	for name, c := range resizes {
		for n := 0; ; n++ {
			d := resizable(t, c.place, c.from)
			st, snap, err := Open(d, c.place, Identity{})
			if err != nil {
				t.Fatal(err)
			}
			d.failAfter(n)
			failed := st.Resize(snap.Super, c.to)
			d.fail = func(*block.Request) error { return nil }
			_, after, err := Open(d, c.place, Identity{})
			if err != nil {
				t.Fatalf("%s, after %d writes: %v", name, n, err)
			}
			if got := after.Super.DataBytes; got != c.to && (failed == nil || got != snap.Super.DataBytes) {
				t.Fatalf("%s, after %d writes: %d bytes", name, n, got)
			}
			if failed == nil {
				break
			}
		}
	}
}
