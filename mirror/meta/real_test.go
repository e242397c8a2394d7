package meta_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/meta"
	"hapair/mirror/store"
	"hapair/test/fault"
)

// layers are disks on a real file, the volatile cache losing what was not
// flushed when it is closed.
var layers = map[string]func(block.Disk) block.Disk{
	"file": func(d block.Disk) block.Disk { return d },
	"volatile cache": func(d block.Disk) block.Disk {
		return fault.NewCache(d, fault.CacheOptions{Seed: 1, Early: 0.3})
	},
}

// Internal metadata on a real file: what was answered is there after the disk
// was closed without a flush, beside data that is not touched.
func TestOnARealDisk(t *testing.T) {
	for name, layer := range layers {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 300<<20)); err != nil {
				t.Fatal(err)
			}
			open := func() block.Disk {
				f, err := store.Open(path, store.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return layer(f)
			}
			disk := open()
			p := meta.CreateParams{Placement: meta.Internal, Resource: "r0", Node: "alpha", Peer: "beta"}
			if _, err := meta.Create(disk, p); err != nil {
				t.Fatal(err)
			}
			for round := range 12 {
				if err := disk.Close(); err != nil {
					t.Fatal(err)
				}
				disk = open()
				s, snap, err := meta.Open(disk, meta.Internal, meta.Identity{Resource: "r0", Node: "alpha"})
				if err != nil {
					t.Fatal(err)
				}
				if len(snap.Repairs) != 0 || snap.Bitmap.Count() != int64(round) || len(snap.HotExtents) != round || snap.Super.Token != uint64(round) {
					t.Fatalf("round %d: %d dirty, hot %v, token %d, repairs %v", round, snap.Bitmap.Count(), snap.HotExtents, snap.Super.Token, snap.Repairs)
				}
				one(t, s, &snap, round)
			}
			data := store.Section(disk, 0, 64<<20)
			if data.Geometry().SizeBytes != 64<<20 {
				t.Fatalf("%+v", data.Geometry())
			}
			if err := errors.Join(data.Close(), disk.Close()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// one writes one of everything, all at once, and waits.
func one(t *testing.T, s *meta.Store, snap *meta.Snapshot, round int) {
	t.Helper()
	off := int64(round) * 5 * actlog.ExtentBytes
	snap.Log.Acquire(off, 4096)
	tx, ok, _ := snap.Log.Prepare(0, func(uint32) bool { return true })
	if !ok {
		t.Fatal("no transaction")
	}
	done := make(chan error, 3)
	answer := func(err error) { done <- err }
	s.WriteActivity(tx, answer)
	snap.Bitmap.Set(off, 4096)
	page, _ := snap.Bitmap.NextStale(0)
	s.WriteBitmapPages(page, snap.Bitmap.Page(page, nil), answer)
	snap.Super.Token++
	s.WriteSuper(snap.Super, answer)
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
