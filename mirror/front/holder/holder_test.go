package holder

import (
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseMountinfo(t *testing.T) {
	text := []byte("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n" +
		"40 35 7:3 / /srv/a\\040b\\134c rw - ext4 /dev/loop3 rw\n" +
		"nonsense\n41 35 7:4 / /short rw\n")
	want := []Mount{
		{Device: "98:0", Point: "/mnt2", Type: "ext3", Source: "/dev/root"},
		{Device: "7:3", Point: `/srv/a b\c`, Type: "ext4", Source: "/dev/loop3"},
	}
	if diff := cmp.Diff(want, ParseMountinfo(text)); diff != "" {
		t.Fatal(diff)
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add([]byte("36 35 98:0 / /mnt2 rw master:1 - ext3 /dev/root rw\n"))
	f.Add([]byte("1 2 3:4 / /a\\04 rw - x \\\n"))
	f.Add([]byte(" - \n - -"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, m := range ParseMountinfo(text) {
			if m.Device == "" || m.Type == "" {
				t.Fatalf("a mount without device or type from %q", text)
			}
		}
	})
}

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
