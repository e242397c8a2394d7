package meta

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"reflect"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/test/release"
)

// hotOf0 are the hot extents, dirtyOf0 the marked blocks of the disks that release 0
// left behind.
var (
	hotOf0   = []uint32{1, 4, 9}
	dirtyOf0 = []int64{0, 40960, 130 << 20}
	superOf0 = Super{
		Device: UUID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, ActivitySlots: testSlots,
		Cluster: "c1", Resource: "r0", Volume: 3, Node: "alpha", Peer: "beta",
		Generations: genid.Set{Current: 0x1111111111111111, Bitmap: 0x2222222222222222, History: [genid.HistoryLen]genid.ID{0x33, 0x44}},
		Disk:        state.UpToDate, Flags: WasPrimary | CrashedPrimary, Token: 0x5555555555555555, Sequence: 3,
	}
)

// diskOf0 is a disk as an agent of release 0 leaves it when its power goes.
func diskOf0(t *testing.T, place Placement) *memDisk {
	p := params()
	p.Placement = place
	size := NeededFor(testData, testSlots)
	if place == Internal {
		size, p.DataBytes = testData+512+size, testData+512
	}
	d := created(t, p, size)
	st, snap, err := Open(d, place, Identity{})
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	for _, e := range hotOf0 {
		snap.Log.Acquire(int64(e)*actlog.ExtentBytes, 4096)
		tx, ok, _ := snap.Log.Prepare(0, func(uint32) bool { return true })
		if !ok {
			t.Fatal("no transaction")
		}
		st.WriteActivity(tx, must(t, &done))
		snap.Log.Commit(tx)
	}
	for _, at := range dirtyOf0 {
		snap.Bitmap.Set(at, 4096)
	}
	for i, ok := snap.Bitmap.NextStale(0); ok; i, ok = snap.Bitmap.NextStale(i + 1) {
		st.WriteBitmapPages(i, snap.Bitmap.Page(i, nil), must(t, &done))
	}
	s := superOf0
	s.Placement, s.DataBytes, s.ActivitySlots = place, snap.Super.DataBytes, snap.Super.ActivitySlots
	st.WriteSuper(s, must(t, &done))
	return d
}

func packed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(b)
	}
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unpacked(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A disk that release 0 left without detaching it means the same today, down to the
// last mark; and what today's release writes there is what release 0 wrote.
func TestDiskOfRelease0(t *testing.T) {
	for _, place := range []Placement{Internal, External} {
		now := diskOf0(t, place)
		at := int64(0) // of the metadata
		if place == Internal {
			at = int64(len(now.data)) - NeededFor(testData, testSlots)
		}
		frozen := unpacked(t, release.Frozen(t, "0", place.String()+".img.gz", func() []byte { return packed(t, now.data[at:]) }))
		d := newMemDisk(int64(len(now.data)))
		copy(d.data[at:], frozen)
		_, snap, err := Open(d, place, Identity{Cluster: "c1", Resource: "r0", Volume: 3, Node: "alpha"})
		if err != nil {
			t.Fatalf("%s: not read any more: %v", place, err)
		}
		want := superOf0
		want.Placement, want.DataBytes, want.ActivitySlots = place, snap.Super.DataBytes, snap.Super.ActivitySlots
		if !reflect.DeepEqual(snap.Super, want) || want.DataBytes/512 != testData/512 && want.DataBytes != testData+512 || want.ActivitySlots != testSlots {
			t.Errorf("%s: the superblock says\n%+v\nand said\n%+v", place, snap.Super, want)
		}
		if !reflect.DeepEqual(snap.HotExtents, hotOf0) || snap.Bitmap.Count() != int64(len(dirtyOf0)) || len(snap.Repairs) != 0 {
			t.Errorf("%s: hot are %v, %d blocks are marked, repairs %q", place, snap.HotExtents, snap.Bitmap.Count(), snap.Repairs)
		}
		for _, at := range dirtyOf0 {
			if !snap.Bitmap.Any(at, 4096) {
				t.Errorf("%s: the block at %d is not marked", place, at)
			}
		}
		if !bytes.Equal(now.data[at:], frozen) {
			t.Errorf("%s: today's release writes something else", place)
		}
	}
}
