package holder

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// attachLoop offers a small file as a loop device for one test.
func attachLoop(t *testing.T) (path string, dev uint64) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a loop device")
	}
	file := t.TempDir() + "/image"
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Skipf("needs losetup and a free loop device: %v", err)
	}
	path = string(out[:len(out)-1])
	t.Cleanup(func() {
		if err := exec.Command("losetup", "-d", path).Run(); err != nil {
			t.Errorf("detach %s: %v", path, err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return path, st.Rdev
}

func TestOfBlockDevice(t *testing.T) {
	path, dev := attachLoop(t)
	held, err := OfBlockDevice(dev)
	if err != nil || len(held) != 0 {
		t.Fatalf("nobody holds it, found %v, %v", held, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	held, err = OfBlockDevice(dev)
	if err != nil || len(held) != 1 || held[0].PID != os.Getpid() || held[0].Command == "" {
		t.Fatalf("this process holds it, found %v, %v", held, err)
	}
	held, err = OfBlockDevice(dev, Own{FD: int(f.Fd())})
	if err != nil || len(held) != 0 {
		t.Fatalf("the own descriptor does not count, found %v, %v", held, err)
	}
}

func TestBusyErrorNamesHolders(t *testing.T) {
	err := &BusyError{Path: "/dev/loop7", Holders: []Holder{{PID: 7, Command: "postgres"}, {Command: "mount on /srv"}}}
	want := "/dev/loop7 is held open by postgres (pid 7), mount on /srv"
	if err.Error() != want {
		t.Fatalf("got %q, want %q", err.Error(), want)
	}
}
