package awake

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// enable undoes Enable in the end.
func enable(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	Enable()
	Enable() // once
	if n := runtime.GOMAXPROCS(0); n != max(before+1, processorsMin) {
		t.Fatalf("%d processors after %d", n, before)
	}
	t.Cleanup(func() {
		enabled.Store(false)
		rested(t)
		runtime.GOMAXPROCS(before)
	})
}

// rested waits until there is no occupant.
func rested(t *testing.T) {
	for end := time.Now().Add(20 * time.Second); occupied.Load(); time.Sleep(turn) {
		if time.Now().After(end) {
			t.Fatal("the occupant does not end")
		}
	}
}

// The occupant comes with a Touch, and goes when there is none.
func TestOccupant(t *testing.T) {
	Touch()
	if occupied.Load() {
		t.Fatal("there is an occupant although nothing was enabled")
	}
	enable(t)
	for range 3 {
		Touch()
		if !occupied.Load() {
			t.Fatal("there is no occupant")
		}
		rested(t)
	}
}

// The monitor is not woken by each system call of a process that is idle in
// between: told by how often the threads of this process gave the processor up.
func TestMonitorIsAwake(t *testing.T) {
	without := switches(t)
	enable(t)
	with := switches(t)
	t.Logf("context switches: %d without, %d with", without, with)
	if with > without*3/4 {
		t.Errorf("%d context switches with an occupant, %d without: the monitor sleeps", with, without)
	}
}

// switches counts the voluntary context switches of this process during calls of
// one goroutine, which in between waits in the poller, as for a client.
func switches(t *testing.T) int64 {
	const calls = 1000
	client := newTimer(t)
	call := unix.NsecToTimespec(int64(100 * time.Microsecond))
	before := givenUp(t)
	for range calls {
		Touch()
		if err := unix.Nanosleep(&call, nil); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		client.wait(t, 200*time.Microsecond)
	}
	return givenUp(t) - before
}

// timer is a clock behind the poller.
type timer struct {
	fd   int
	file *os.File
}

func newTimer(t *testing.T) timer {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "timer")
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	return timer{fd: fd, file: file}
}

func (c timer) wait(t *testing.T, d time.Duration) {
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	if err := unix.TimerfdSettime(c.fd, 0, &at, nil); err != nil {
		t.Fatal(err)
	}
	var ticks [8]byte
	if _, err := c.file.Read(ticks[:]); err != nil {
		t.Fatal(err)
	}
}

func givenUp(t *testing.T) int64 {
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		t.Fatal(err)
	}
	return use.Nvcsw
}
