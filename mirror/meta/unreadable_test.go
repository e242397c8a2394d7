package meta

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
)

// flaw makes blocks of a disk unreadable until they are written.
func flaw(d *memDisk, at ...int64) {
	flaws := map[int64]bool{}
	for _, a := range at {
		flaws[a] = true
	}
	d.fail = func(r *block.Request) error {
		for a := r.Offset; a < r.End(); a += BlockBytes {
			switch {
			case r.Op.Changes():
				delete(flaws, a)
			case r.Op == block.Read && flaws[a]:
				return fmt.Errorf("%w: medium error at byte %d", block.ErrIO, a)
			}
		}
		return nil
	}
}

// A page that cannot be read counts as all out of sync; the others say what they did.
func TestUnreadablePage(t *testing.T) {
	d, _, snap := used(t, External, 1<<20, testData)
	flaw(d, snap.Layout.BitmapOffset+BlockBytes)
	st, after := reopened(t, d)
	const span = dirty.PageExtents * dirty.ExtentBytes
	if after.Bitmap.DirtyBytes() != snap.Bitmap.DirtyBytes()+span || !after.Bitmap.Unsaved(1) || len(after.Repairs) != 1 || !slices.Equal(after.HotExtents, []uint32{1}) {
		t.Fatalf("%d bytes out of sync, hot %v, repairs %v", after.Bitmap.DirtyBytes(), after.HotExtents, after.Repairs)
	}
	n := 0
	st.WriteBitmapPages(1, after.Bitmap.Page(1, nil), must(t, &n))
	if _, again := reopened(t, d); len(again.Repairs) != 0 || again.Bitmap.DirtyBytes() != after.Bitmap.DirtyBytes() {
		t.Fatalf("%d bytes out of sync, repairs %v", again.Bitmap.DirtyBytes(), again.Repairs)
	}
}

// Which extents are hot is not known with a block of the ring unreadable, whichever:
// all of it counts as out of sync, and the ring is written anew.
func TestUnreadableTransaction(t *testing.T) {
	for i := range int64(actlog.RingBlocks(testSlots)) {
		d := external(t)
		l := fillRing(t, d, 7)
		flaw(d, l.RingOffset+i*BlockBytes)
		_, snap := reopened(t, d)
		if snap.Bitmap.DirtyBytes() != testData || len(snap.HotExtents) != 0 || len(snap.Repairs) != 1 {
			t.Fatalf("block %d: %d bytes out of sync, hot %v, repairs %v", i, snap.Bitmap.DirtyBytes(), snap.HotExtents, snap.Repairs)
		}
		if _, again := reopened(t, d); again.Bitmap.DirtyBytes() != testData || len(again.Repairs) != 0 {
			t.Fatalf("block %d: %d bytes out of sync, repairs %v", i, again.Bitmap.DirtyBytes(), again.Repairs)
		}
	}
}

// A disk that cannot be read at many places has failed, and is not written.
func TestUnreadableDisk(t *testing.T) {
	d, _, snap := used(t, External, 1<<20, 40*dirty.PageExtents*dirty.ExtentBytes)
	var pages []int64
	for i := range int64(unreadableMax + 1) {
		pages = append(pages, snap.Layout.BitmapOffset+4*i*BlockBytes)
	}
	flaw(d, pages...)
	before := slices.Clone(d.data)
	if _, _, err := Open(d, External, Identity{}); !errors.Is(err, block.ErrIO) || !slices.Equal(before, d.data) {
		t.Fatal(err)
	}
	flaw(d, pages[1:]...)
	if _, after := reopened(t, d); len(after.Repairs) != unreadableMax {
		t.Fatal(after.Repairs)
	}
}

// A superblock that cannot be read may be the younger one, and the other then say less
// than was promised: neither is believed. By force, others are made.
func TestUnreadableSuperblock(t *testing.T) {
	for _, place := range []Placement{Internal, External} {
		for i := range superBlocks {
			d, _, snap := used(t, place, 16<<20, 8<<20)
			flaw(d, snap.Layout.supers[i])
			if _, _, err := Open(d, place, Identity{}); !errors.Is(err, block.ErrIO) || errors.Is(err, ErrNone) || errors.Is(err, ErrTorn) {
				t.Fatalf("%s, superblock %d: %v", place, i, err)
			}
			p := params()
			p.Placement, p.DataBytes = place, 8<<20
			if _, err := Create(d, p); err == nil {
				t.Fatalf("%s, superblock %d: made without force", place, i)
			}
			p.Force = true
			if _, err := Create(d, p); err != nil {
				t.Fatalf("%s, superblock %d, by force: %v", place, i, err)
			}
			if _, after, err := Open(d, place, Identity{}); err != nil || len(after.Repairs) != 0 {
				t.Fatalf("%s, superblock %d: repairs %v, %v", place, i, after.Repairs, err)
			}
		}
	}
}

// Where metadata were before a disk has grown, and cannot be read, there may be the
// younger ones: none, or others at the end, are not the answer.
func TestUnreadableBeforeItHasGrown(t *testing.T) {
	d, _, snap := used(t, Internal, 16<<20, 0)
	other, _, _ := used(t, Internal, 40<<20, 0)
	d.grow(40 << 20)
	for range 2 {
		flaw(d, snap.Layout.supers[1])
		if _, _, err := Open(d, Internal, Identity{LastEnd: 16 << 20}); !errors.Is(err, block.ErrIO) || errors.Is(err, ErrNone) {
			t.Fatal(err)
		}
		copy(d.data[40<<20-2*BlockBytes:], other.data[40<<20-2*BlockBytes:])
	}
}
