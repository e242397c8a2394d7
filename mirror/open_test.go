package mirror

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/block"
	"hapair/mirror/store"
	"hapair/mirror/wire"
	"hapair/test/fault"
)

// hangingStart is a node whose metadata answer nothing from the start, and what they are
// once they are opened.
func hangingStart(t *testing.T) (c Config, obs *observer, md <-chan *fault.Disk) {
	t.Helper()
	dir, hang := t.TempDir(), make(chan *fault.Disk, 1)
	create(t, dir, "alpha", "beta", 0)
	obs = &observer{t: t, node: "alpha", ch: make(chan struct{}, 1), dep: make(chan error, 1)}
	start, rec := time.Now(), wire.Record{Token: 1, InSync: []string{"alpha", "beta"}}
	wrap := func(path string, d block.Disk) block.Disk {
		if filepath.Base(path) != "md" {
			return d
		}
		f := fault.New(d)
		f.Add(fault.Rule{Hang: true})
		hang <- f
		return f
	}
	return Config{Cluster: "c", Resource: "r", Self: "alpha", Peer: "beta", Record: rec, Ledger: &ledger{rec: rec}, Dialer: &wireUp{cut: true}, Logger: zap.NewNop(),
		Clock: func() time.Duration { return time.Since(start) + time.Second }, Observer: obs,
		Volumes: []VolumeConfig{{Disk: filepath.Join(dir, "disk"), Metadata: filepath.Join(dir, "md"), Frontend: &door{}, Wrap: wrap}}}, obs, hang
}

// opens is Open, which has to end by itself.
func opens(ctx context.Context, t *testing.T, c Config) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := Open(ctx, c)
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("waits for a disk that hangs")
		return nil
	}
}

// free waits until somebody else can open a disk.
func free(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		d, err := store.Open(path, store.Options{})
		if err == nil {
			must(t, d.Close())
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not let go of: %v", err)
		}
	}
}

// A disk that hangs from the start is not waited for, and is nobody else's before it
// answers. Then it is let go of, and an operator is told.
func TestDiskThatHangsAtTheStart(t *testing.T) {
	c, obs, md := hangingStart(t)
	c.OpenWithin = 50 * time.Millisecond
	if err := opens(t.Context(), t, c); !errors.Is(err, block.ErrNoAnswer) || !strings.Contains(err.Error(), c.Volumes[0].Metadata) {
		t.Fatalf("opened with %v", err)
	}
	hang := <-md
	if _, err := store.Open(c.Volumes[0].Disk, store.Options{}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("the disk that goes with the one that hangs: %v", err)
	}
	hang.Clear()
	hang.Release()
	select {
	case <-obs.ch:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody is told that the disk answers")
	}
	if told, _ := obs.told(); len(told) != 1 || !strings.Contains(told[0], "have answered after") || !strings.Contains(told[0], "are free") {
		t.Errorf("told: %q", told)
	}
	for _, path := range []string{c.Volumes[0].Disk, c.Volumes[0].Metadata} {
		free(t, path)
	}
}

// One that answers late with an error is told of as such.
func TestDiskThatFailsLateAtTheStart(t *testing.T) {
	c, obs, md := hangingStart(t)
	c.OpenWithin = 50 * time.Millisecond
	if err := opens(t.Context(), t, c); !errors.Is(err, block.ErrNoAnswer) {
		t.Fatalf("opened with %v", err)
	}
	hang := <-md
	hang.Clear()
	hang.Add(fault.Rule{Err: block.ErrIO})
	hang.Release()
	select {
	case <-obs.ch:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody is told")
	}
	if told, _ := obs.told(); len(told) != 1 || !strings.Contains(told[0], "cannot be used") {
		t.Errorf("told: %q", told)
	}
	free(t, c.Volumes[0].Disk)
}

// An agent that is stopped while a disk hangs does not wait for it, and nobody is told later.
func TestStoppedWhileADiskHangsAtTheStart(t *testing.T) {
	c, obs, md := hangingStart(t)
	ctx, cancel := context.WithCancel(t.Context())
	hang := make(chan *fault.Disk, 1)
	go func() {
		hang <- <-md
		cancel()
	}()
	if err := opens(ctx, t, c); !errors.Is(err, context.Canceled) {
		t.Fatalf("opened with %v", err)
	}
	f := <-hang
	f.Clear()
	f.Release()
	free(t, c.Volumes[0].Disk)
	opened{err: block.ErrIO}.letGo(ctx, &c, time.Minute)
	if told, _ := obs.told(); len(told) != 0 {
		t.Errorf("told: %q", told)
	}
}
