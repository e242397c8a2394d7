package fuse_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/front/fronttest"
	"hapair/mirror/front/fuse"
)

// endsWithin waits for an outcome.
func endsWithin(t *testing.T, what string, outcome <-chan error) error {
	t.Helper()
	select {
	case err := <-outcome:
		return err
	case <-time.After(10 * time.Second):
		t.Fatalf("%s does not end", what)
		return nil
	}
}

// beginStart starts a device whose volume answers no flush, and returns when
// the start waits for one.
func beginStart(t *testing.T, ctx context.Context) (*fuse.Fuse, *fronttest.Memory, <-chan error) {
	t.Helper()
	if err := fuse.Usable(); err != nil {
		t.Skipf("FUSE and loop devices: %v", err)
	}
	dir := t.TempDir()
	m := memory(t, 4<<20)
	m.Hold(block.Flush)
	f := fuse.New(fuse.Config{Mountpoint: filepath.Join(dir, "fuse", "r0-0"), Link: filepath.Join(dir, "dev", "r0", "0")})
	t.Cleanup(func() {
		m.Release()
		if err := f.Abort(context.Background()); err != nil {
			t.Error(err)
		}
		nothingLeft(t, dir)
	})
	outcome := make(chan error, 1)
	go func() {
		_, err := f.Start(ctx, m, m.Geometry())
		outcome <- err
	}()
	m.AwaitHeld(1)
	return f, m, outcome
}

// startAgain sees that a front end is as good as new.
func startAgain(t *testing.T, f *fuse.Fuse, m *fronttest.Memory) {
	t.Helper()
	m.Release()
	if _, err := f.Start(context.Background(), m, m.Geometry()); err != nil {
		t.Fatal(err)
	}
	stop(t, f)
}

// A start ends with its context, whatever it waits for.
func TestStartBrokenOff(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	f, m, outcome := beginStart(t, ctx)
	why := errors.New("the lease is lost")
	cancel(why)
	if err := endsWithin(t, "the start", outcome); !errors.Is(err, why) {
		t.Errorf("the start ended with %v", err)
	}
	startAgain(t, f, m)
}

// Abort waits neither for a start nor for a stop that waits for the volume.
func TestAbortDuringStart(t *testing.T) {
	f, m, outcome := beginStart(t, context.Background())
	aborted := make(chan error, 1)
	go func() { aborted <- f.Abort(context.Background()) }()
	if err := endsWithin(t, "Abort", aborted); err != nil {
		t.Error(err)
	}
	if err := endsWithin(t, "the start", outcome); err == nil {
		t.Error("the start succeeded")
	}
	startAgain(t, f, m)
}

func TestAbortDuringStop(t *testing.T) {
	m := memory(t, 4<<20)
	f, dev := start(t, m, m.Geometry())
	dirty(t, dev)
	m.Hold(block.Write)
	m.Hold(block.Flush)
	outcome, aborted := make(chan error, 1), make(chan error, 1)
	go func() { outcome <- f.Stop(context.Background()) }()
	m.AwaitHeld(1)
	go func() { aborted <- f.Abort(context.Background()) }()
	if err := endsWithin(t, "Abort", aborted); err != nil {
		t.Error(err)
	}
	if err := endsWithin(t, "Stop", outcome); err == nil {
		t.Error("the stop succeeded though the pages were not written")
	}
	m.Release()
}

// An Abort that does not get its turn in time cuts the device off all the same; the next
// Start takes it down.
func TestStartAfterAbortWithoutTurn(t *testing.T) {
	m := memory(t, 4<<20)
	f, dev := start(t, m, m.Geometry())
	release := f.TakeTurn()
	aborted := make(chan error, 1)
	go func() { aborted <- f.Abort(context.Background()) }()
	if err := endsWithin(t, "Abort", aborted); err == nil {
		t.Error("Abort says that the device is gone")
	}
	file := openDirect(t, dev)
	if _, err := file.ReadAt(block.Aligned(4096), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("a read of the device: %v, want EIO", err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	release()
	startAgain(t, f, m)
}

// dirty leaves pages in the cache.
func dirty(t *testing.T, dev string) {
	t.Helper()
	file, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
}
