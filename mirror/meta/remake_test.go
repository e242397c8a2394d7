package meta

import (
	"bytes"
	"errors"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/dirty"
)

// remakes: where metadata lies that is made anew, on a device that may have
// grown, and the sizes before and after. 0: all there is.
var remakes = map[string]struct {
	place    Placement
	device   int64 // before
	grown    int64 // after
	from, to int64
}{
	"internal, the device has grown":        {Internal, 16 << 20, 40 << 20, 0, 0},
	"internal, within the device":           {Internal, 40 << 20, 40 << 20, 10<<20 + 512, 30 << 20},
	"internal, smaller":                     {Internal, 40 << 20, 40 << 20, 0, 20<<20 + 512},
	"internal, smaller on a larger device":  {Internal, 40 << 20, 60 << 20, 0, 20<<20 + 512},
	"external":                              {External, 1 << 20, 1 << 20, 40<<20 + 512, 400 << 20},
	"external, smaller":                     {External, 1 << 20, 1 << 20, 400 << 20, 40<<20 + 512},
	"external, within a page of the bitmap": {External, 1 << 20, 1 << 20, 40 << 20, 41 << 20},
	"external, of many pages":               {External, 1 << 20, 1 << 20, 400 << 20, 700<<20 + 512},
	"external, smaller, of many pages":      {External, 1 << 20, 1 << 20, 700<<20 + 512, 400 << 20},
}

// used is a copy with marks and a hot extent.
func used(t *testing.T, place Placement, device, from int64) (*memDisk, *Store, *Snapshot) {
	t.Helper()
	p := params()
	p.Placement, p.DataBytes = place, from
	d := created(t, p, device)
	st, snap, err := Open(d, place, Identity{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	snap.Log.Acquire(actlog.ExtentBytes, 1)
	tx, _, _ := snap.Log.Prepare(0, func(uint32) bool { return true })
	st.WriteActivity(tx, must(t, &n))
	snap.Log.Commit(tx)
	snap.Bitmap.Set(8<<20, 1)
	snap.Bitmap.Set(snap.Super.DataBytes-1, 1)
	for i := range snap.Bitmap.Pages() {
		st.WriteBitmapPages(i, snap.Bitmap.Page(i, nil), must(t, &n))
	}
	snap.Super.Flags = 0
	st.WriteSuper(snap.Super, must(t, &n))
	if place == Internal {
		for at := int64(0); at < snap.Super.DataBytes; at += 1 << 20 {
			d.data[at] = 0xda // data
		}
	}
	return d, st, &snap
}

func (d *memDisk) grow(size int64) {
	d.data = append(d.data, make([]byte, size-int64(len(d.data)))...)
}

func remade(snap *Snapshot, to int64) Remake {
	bits := snap.Bitmap.Clone()
	bits.Resize(to)
	return Remake{Super: snap.Super, DataBytes: to, Bitmap: bits, Log: snap.Log.Restate()}
}

// sayTheSame: metadata found later say what those before did, but for the size.
func sayTheSame(t *testing.T, name string, snap, after *Snapshot, want *dirty.Bitmap) {
	t.Helper()
	if s := after.Super; s.Device != snap.Super.Device || s.Generations != snap.Super.Generations || s.Flags != snap.Super.Flags || s.DataBytes != want.SizeBytes() {
		t.Fatalf("%s: %+v", name, s)
	}
	if len(after.Repairs) > 0 || len(after.HotExtents) != 1 || after.HotExtents[0] != 1 {
		t.Fatalf("%s: hot %v, repairs %v", name, after.HotExtents, after.Repairs)
	}
	for i := range want.Pages() {
		if !bytes.Equal(want.Page(i, nil), after.Bitmap.Page(i, nil)) {
			t.Fatalf("%s: page %d of the bitmap differs", name, i)
		}
	}
}

func TestRemake(t *testing.T) {
	for name, c := range remakes {
		d, st, snap := used(t, c.place, c.device, c.from)
		d.grow(c.grown)
		to := c.to
		if to == 0 {
			to = st.Room(c.grown)
		}
		r := remade(snap, to)
		was := snap.Super.DataBytes
		if to > was && to < st.Floor() {
			t.Fatalf("%s: to %d, from %d on", name, to, st.Floor())
		}
		if err := st.Remake(r); err != nil {
			t.Fatal(name, err)
		}
		n := 0
		super := snap.Super
		super.DataBytes, super.Token = to, 9
		st.WriteSuper(super, must(t, &n)) // it goes on in the new place
		snap.Log.Acquire(actlog.ExtentBytes, 1)
		_, after, err := Open(d, c.place, Identity{LastEnd: c.device})
		if err != nil || after.Super.Token != 9 {
			t.Fatalf("%s: token %d, %v", name, after.Super.Token, err)
		}
		sayTheSame(t, name, snap, &after, r.Bitmap)
		if c.place == External {
			continue
		}
		want := make([]byte, to)
		for at := int64(0); at < min(to, was); at += 1 << 20 {
			want[at] = 0xda
		}
		if !bytes.Equal(d.data[:to], want) {
			t.Fatalf("%s: the data are not what they were, and zeroes", name)
		}
	}
}

// Cut off anywhere, it has the old size or the new one, and says everything that
// it said; what is not yet as it is to be is marked.
func TestRemakeCutOff(t *testing.T) {
	for name, c := range remakes {
		for n := 0; ; n++ {
			d, st, snap := used(t, c.place, c.device, c.from)
			d.grow(c.grown)
			to := c.to
			if to == 0 {
				to = st.Room(c.grown)
			}
			r := remade(snap, to)
			d.failAfter(n)
			failed := st.Remake(r)
			d.fail = nil
			_, after, err := Open(d, c.place, Identity{LastEnd: c.device})
			if err != nil {
				t.Fatalf("%s, after %d writes: %v", name, n, err)
			}
			switch want := r.Bitmap; {
			case failed == nil:
				sayTheSame(t, name, snap, &after, want)
			case after.Super.DataBytes == snap.Super.DataBytes:
				sayTheSame(t, name, snap, &after, snap.Bitmap)
			default:
				cutAfterTheSwitch(t, name, d, snap, &after, want)
			}
			if failed == nil {
				break
			}
		}
	}
}

// cutAfterTheSwitch: the new metadata count, and every mark is there; what was
// metadata and does not read zero is marked too.
func cutAfterTheSwitch(t *testing.T, name string, d *memDisk, snap, after *Snapshot, want *dirty.Bitmap) {
	t.Helper()
	if after.Super.DataBytes != want.SizeBytes() {
		t.Fatalf("%s: %d bytes", name, after.Super.DataBytes)
	}
	for at := int64(0); at < want.SizeBytes(); at += dirty.BlockBytes {
		marked := after.Bitmap.Any(at, 1)
		if want.Any(at, 1) && !marked {
			t.Fatalf("%s: the mark at byte %d is gone", name, at)
		}
		if after.Super.Placement == Internal && at >= snap.Super.DataBytes && d.data[at]|d.data[at+20] != 0 && !marked {
			t.Fatalf("%s: what is left of the old metadata at byte %d is not marked", name, at)
		}
	}
}

// What cannot be made anew is refused before anything is written.
func TestRemakeRefuses(t *testing.T) {
	d, st, snap := used(t, Internal, 40<<20, 20<<20)
	d.failAfter(0)
	if err := st.Remake(remade(snap, 20<<20+8192)); !errors.Is(err, ErrOverlap) {
		t.Errorf("a size whose metadata would lie over the old: %v", err)
	}
	if err := st.Remake(remade(snap, 40<<20)); !errors.Is(err, ErrTooSmall) {
		t.Errorf("all of the device: %v", err)
	}
	d.grow(40<<20 + 4096)
	if err := st.Remake(remade(snap, 30<<20)); !errors.Is(err, ErrOverlap) {
		t.Errorf("superblocks over superblocks: %v", err)
	}
	d, st, snap = used(t, External, NeededFor(40<<20, testSlots), 40<<20)
	d.failAfter(0)
	if err := st.Remake(remade(snap, 400<<20)); !errors.Is(err, ErrTooSmall) {
		t.Errorf("a bitmap that has no room: %v", err)
	}
	if room := st.Room(1 << 30); room != dirty.PageExtents*dirty.ExtentBytes {
		t.Errorf("one page is room for %d bytes", room)
	}
}

// A device that has grown is opened where its metadata are, if that is known.
// What its growth brought, metadata of this copy of long ago, does not count.
func TestGrownDeviceIsFound(t *testing.T) {
	d, st, snap := used(t, Internal, 16<<20, 0)
	other, _, _ := used(t, Internal, 40<<20, 0)
	n := 0
	st.WriteSuper(snap.Super, must(t, &n))
	d.grow(40 << 20)
	if _, _, err := Open(d, Internal, Identity{}); !errors.Is(err, ErrNone) {
		t.Fatalf("without a word where they are: %v", err)
	}
	for range 2 {
		_, after, err := Open(d, Internal, Identity{LastEnd: 16 << 20})
		if err != nil || after.Layout.End != 16<<20 {
			t.Fatalf("ends at %d, %v", after.Layout.End, err)
		}
		copy(d.data[40<<20-2*BlockBytes:], other.data[40<<20-2*BlockBytes:])
	}
}
