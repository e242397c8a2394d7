package meta

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/dirty"
	"hapair/test/replay"
)

// The power is cut at every step of a remake, and any part is lost of what was not
// flushed: the metadata have the old size or the new one, whole, and no mark is gone.
func TestPowerCutDuringARemake(t *testing.T) {
	for name, c := range remakes {
		d, _, _ := used(t, c.place, c.device, c.from)
		d.grow(c.grown)
		log, start := &replay.Log{}, bytes.Clone(d.data)
		rec, number := log.Record(d)
		st, before, err := Open(rec, c.place, Identity{LastEnd: c.device})
		if err != nil {
			t.Fatal(name, err)
		}
		to := c.to
		if to == 0 {
			to = st.Room(c.grown)
		}
		r := remade(&before, to)
		r.Bitmap.Set(unsavedAt, 1)
		if err := st.Remake(r); err != nil {
			t.Fatal(name, err)
		}
		rng, sizes := rand.New(rand.NewPCG(1, 2)), map[int64]int{}
		for p := replay.NewPlayer(log, map[int][]byte{number: start}); ; {
			for _, lost := range []replay.Loss{replay.LoseNothing, replay.LoseEverything, replay.LoseAny(rng), replay.LoseAny(rng), replay.LoseAny(rng)} {
				_, after, err := Open(p.Cut(number, lost), c.place, Identity{LastEnd: c.device})
				at, of := p.Position()
				if err != nil {
					t.Fatalf("%s, after %d of %d events: %v", name, at, of, err)
				}
				sizes[after.Super.DataBytes]++
				foundWhole(t, name, &before, &after, r.Bitmap)
			}
			if !p.Step() {
				break
			}
		}
		if len(sizes) != 2 || sizes[to] == 0 {
			t.Errorf("%s: found with the sizes %v", name, sizes)
		}
	}
}

// notOfSuper: a repair is of something else than a superblock.
func notOfSuper(repair string) bool { return !strings.HasSuffix(repair, "; the other one is used") }

// foundWhole: the metadata say what those before did, or what the new ones are to say,
// and perhaps more marks.
func foundWhole(t *testing.T, name string, before, after *Snapshot, fresh *dirty.Bitmap) {
	t.Helper()
	want := before.Bitmap
	if after.Super.DataBytes != before.Super.DataBytes {
		want = fresh
	}
	s := after.Super
	if s.Device != before.Super.Device || s.Generations != before.Super.Generations || s.Flags != before.Super.Flags || s.DataBytes != want.SizeBytes() {
		t.Fatalf("%s: %+v", name, s)
	}
	if slices.ContainsFunc(after.Repairs, notOfSuper) || len(after.HotExtents) != 1 || after.HotExtents[0] != 1 {
		t.Fatalf("%s: hot %v, repairs %v", name, after.HotExtents, after.Repairs)
	}
	for _, e := range after.HotExtents { // as an attach after a crash does
		after.Bitmap.Set(int64(e)*actlog.ExtentBytes, actlog.ExtentBytes)
	}
	for i := range want.Pages() {
		is := after.Bitmap.Page(i, nil)
		for k, b := range want.Page(i, nil) {
			if b&^is[k] != 0 {
				t.Fatalf("%s: of %d bytes, a mark in byte %d of page %d of the bitmap is gone", name, s.DataBytes, k, i)
			}
		}
	}
}
