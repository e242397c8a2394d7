package writeout

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// childVariable has the test's program be what is tested.
const childVariable = "HAPAIR_TEST_WRITEOUT"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	errs := Prepare()
	for _, err := range errs {
		fmt.Println("refused:", err)
	}
	spread()
	s, err := Look()
	fmt.Printf("state: %+v, ready %v, error %v, again %q\n", s, s.Ready(), err, os.Getenv(reenteredVariable))
	err = Ordinary(func() error {
		c := exec.Command("/bin/sh", "-c", "cat /proc/self/stat")
		out, err := c.Output()
		if err != nil {
			return err
		}
		flags, err := flagsOf(out)
		fmt.Println("child flusher:", flags&noWaiting != 0)
		return err
	})
	after, flusherErr := isFlusher()
	fmt.Println("ordinary:", err, "after it:", after == (s.Flushers > 0), flusherErr != nil == (s.Flushers == 0 && anyFlusher(errs)))
	os.Exit(0)
}

func anyFlusher(errs []error) bool { // the kernel refuses even to say
	for _, err := range errs {
		if strings.Contains(err.Error(), "flusher") {
			return true
		}
	}
	return false
}

// spread has the runtime start threads.
func spread() {
	const threads = 8
	begun, end := make(chan struct{}), make(chan struct{})
	for range threads {
		go func() {
			runtime.LockOSThread()
			begun <- struct{}{}
			<-end
		}()
	}
	for range threads {
		<-begun
	}
	close(end)
}

// What the kernel grants holds for every thread, and not for the programs that are
// started; what it refuses is told with what it takes, and nothing else changes.
func TestPrepare(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), childVariable+"=1")
	b, err := c.CombinedOutput()
	out := string(b)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Log(out)
	for _, want := range []string{`error <nil>, again ""`, "child flusher: false", "ordinary: <nil> after it: true true"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	if refused := strings.Contains(out, "refused:"); refused == strings.Contains(out, "ready true") {
		t.Error("what is refused and how ready it is do not fit together")
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "refused:") && !strings.Contains(line, "it takes CAP_") {
			t.Errorf("%q does not say what it takes", line)
		}
	}
}

func TestParsers(t *testing.T) {
	if n, err := flagsOf([]byte("77 (a ) b (c) S 1 77 77 0 -1 4718912 100 0")); err != nil || n&noWaiting == 0 {
		t.Error(n, err)
	}
	if n, err := lockedOf([]byte("00400000-7ff00000 ---p 00000000 00:00 0 [rollup]\nPss: 4 kB\nLocked:   5120 kB\n")); err != nil || n != 5<<20 {
		t.Error(n, err)
	}
	for _, bad := range []string{"", "77 (a) S 1 2", "77 a S 1 2 3 4 5 6 7 8", "77 (a) S 1 2 3 4 5 x 7"} {
		if n, err := flagsOf([]byte(bad)); !errors.Is(err, errFormat) {
			t.Errorf("%q has the flags %d, %v", bad, n, err)
		}
	}
	for _, bad := range []string{"", "Locked: x kB\n", "Locked: -1 kB\n", "Locked: 9999999999999999999 kB\n"} {
		if n, err := lockedOf([]byte(bad)); !errors.Is(err, errFormat) {
			t.Errorf("%q: %d, %v", bad, n, err)
		}
	}
}

func TestNeeds(t *testing.T) {
	if err := needs(unix.EPERM, "CAP_X"); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_X") {
		t.Error(err)
	}
	if err := needs(unix.EIO, "CAP_X"); err != unix.EIO { //nolint:errorlint // it is to be the same
		t.Error(err)
	}
}

// FuzzProc: whatever /proc may say, it is read or refused.
func FuzzProc(f *testing.F) {
	f.Add([]byte("77 (a ) b (c) S 1 77 77 0 -1 4718912 100 0"))
	f.Add([]byte("Pss: 4 kB\nLocked:   5120 kB\n"))
	f.Add([]byte(") S 1 2 3 4 5 18446744073709551616"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := flagsOf(b); err != nil && !errors.Is(err, errFormat) {
			t.Error(err)
		}
		if n, err := lockedOf(b); err != nil && !errors.Is(err, errFormat) || err == nil && n < 0 {
			t.Error(n, err)
		}
	})
}
