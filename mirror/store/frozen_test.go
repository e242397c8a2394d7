package store

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
)

// The requests of linux/fs.h.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// filesystem mounts a new ext4.
func filesystem(t *testing.T) (dir string) {
	t.Helper()
	dev, dir := loop(t, 64*mib), t.TempDir()
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", dev).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	if err := unix.Mount(dev, dir, "ext4", 0, ""); err != nil {
		t.Skip("mount:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// freeze has a filesystem keep all writes waiting for so long. A process of its own ends
// that: this one may stand still.
func freeze(t *testing.T, dir string, seconds string) (thawed <-chan error) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.IoctlSetInt(int(d.Fd()), fiThaw, 0); err != nil && !errors.Is(err, unix.EINVAL) { // it is thawed
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	thaw := exec.Command("sh", "-c", `sleep "$1" && exec fsfreeze --unfreeze "$2"`, "sh", seconds, dir)
	if err := thaw.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- thaw.Wait() }()
	if err := unix.IoctlSetInt(int(d.Fd()), fiFreeze, 0); err != nil {
		t.Skip("freeze:", errors.Join(err, thaw.Process.Kill(), <-done))
	}
	return done
}

// sleeps waits until a thread of this process waits in the kernel and cannot be woken.
func sleeps(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		all, err := filepath.Glob("/proc/self/task/*/stat")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range all {
			if stat, err := os.ReadFile(path); err == nil && strings.Contains(string(stat), ") D ") {
				return
			}
		}
	}
	t.Fatal("no thread waits for the filesystem")
}

// A filesystem may keep io_submit waiting, whatever it was told: while it does, the
// process goes on.
func TestFilesystemThatWaits(t *testing.T) {
	f := opened(t, newFile(t, filesystem(t), mib), Options{})
	if async, why := f.Async(); !async {
		t.Skip("no asynchronous I/O here:", why)
	}
	if err := f.writeZeroes(&block.Request{Length: mib}); err != nil {
		t.Fatal(err)
	}
	if err := do(f, &block.Request{Op: block.Flush}); err != nil {
		t.Fatal(err)
	}
	thawed := freeze(t, filepath.Dir(f.Path()), "4")
	written := make(chan error, 1)
	go func() { written <- do(f, write(0, block.Aligned(4096), 0)) }()
	sleeps(t)
	begin := time.Now()
	runtime.GC() // waits for all who have not told that they wait
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the process stood still for %v", took)
	}
	if err := errors.Join(<-thawed, <-written); err != nil {
		t.Error(err)
	}
}
