package sbd

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A monitor does not open the disk for writing: udev, which is told when one that did
// closes it, would look at it anew each time.
func TestMonitorReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if _, err := Create(path, owner, true); errors.Is(err, ErrBuffered) {
		t.Skipf("needs a directory that is not in memory: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	d := New(DeviceConfig{Path: path, Open: func() (Disk, error) { return OpenDisk(path) }, Look: func() (Disk, error) { return LookAtDisk(path) },
		Owner: owner, Self: "alpha", Node: "beta", Met: func() (string, bool) { return "", false }, Hears: func() bool { return true }, Timeout: time.Minute})
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd) //nolint:errcheck // a test's
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_CLOSE_WRITE); err != nil {
		t.Fatal(err)
	}
	told := func() bool {
		_, err := unix.Read(fd, make([]byte, 4096))
		if err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
		return err == nil
	}
	for range 3 {
		if err := d.Monitor(t.Context()); err == nil {
			t.Error("a slot that nobody has written is good")
		}
	}
	if told() {
		t.Error("it was opened for writing")
	}
	w, err := OpenDisk(path)
	if err == nil {
		err = w.Close()
	}
	if err != nil || !told() {
		t.Errorf("%v, or nobody is told: this test would see nothing", err)
	}
}
