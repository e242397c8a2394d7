package apart

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// What is open elsewhere is not on the thread, but for what is kept, and what
// is opened there is gone afterwards.
func TestDoHasNoDescriptors(t *testing.T) {
	other, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	kept, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	file := filepath.Join(t.TempDir(), "lock")
	var listed []int
	err = Do(func() (err error) {
		if listed, err = descriptors(); err != nil {
			return err
		}
		var b [1]byte
		if _, err := unix.Read(int(kept.Fd()), b[:]); err != nil {
			return err
		}
		fd, err := unix.Open(file, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		return unix.Flock(fd, unix.LOCK_EX)
	}, int(kept.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(listed, int(other.Fd())) || !slices.Contains(listed, int(kept.Fd())) {
		t.Errorf("on the thread are %v; %d is another's, %d is kept", listed, other.Fd(), kept.Fd())
	}
	again, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := unix.Flock(int(again.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("what was opened on the thread is still open: %v", err)
	}
	if _, err := kept.Read(make([]byte, 1)); err != nil {
		t.Errorf("what was kept is closed: %v", err)
	}
}

// A pipe whose end is closed while a call goes on is closed for its reader: the
// thread does not hold a copy.
func TestDoHoldsNothing(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	inside, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- Do(func() error { close(inside); <-release; return nil })
	}()
	<-inside
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("the pipe was not closed")
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDoReturnsErrorsAndPanics(t *testing.T) {
	want := errors.New("this one")
	if err := Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("the panic is lost")
		}
	}()
	_ = Do(func() error { panic("here") })
}

// Collections, timers and goroutines go on beside, and on, such threads.
func TestDoBesideTheRuntime(t *testing.T) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 30 {
				if err := Do(func() error { runtime.GC(); return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
