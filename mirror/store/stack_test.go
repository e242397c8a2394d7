package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes a sysfs of directories and, where a name says so, links.
func tree(t *testing.T, dirs []string, links map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for at, to := range links {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, at)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, to), filepath.Join(root, at)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestStack(t *testing.T) {
	root := tree(t, []string{
		"devices/sda/slaves", "devices/sda/sda1/partition", "devices/nvme0n1/slaves", "devices/zram0/slaves",
		"devices/md0/md", "devices/md0/slaves", "devices/md0/md0p1/partition", "devices/dm-0/slaves", "devices/dm-1/slaves", "devices/dm-2/slaves", "devices/dm-3/slaves", "devices/vda",
	}, map[string]string{
		"dev/block/8:0": "devices/sda", "dev/block/8:1": "devices/sda/sda1", "dev/block/259:0": "devices/nvme0n1", "dev/block/252:0": "devices/zram0",
		"dev/block/9:0": "devices/md0", "dev/block/259:1": "devices/md0/md0p1", "dev/block/254:0": "devices/vda",
		"dev/block/253:0": "devices/dm-0", "dev/block/253:1": "devices/dm-1", "dev/block/253:2": "devices/dm-2", "dev/block/253:3": "devices/dm-3",
		"devices/md0/slaves/sda1":     "devices/sda/sda1",
		"devices/dm-0/slaves/sda1":    "devices/sda/sda1",
		"devices/dm-0/slaves/nvme0n1": "devices/nvme0n1",
		"devices/dm-1/slaves/dm-2":    "devices/dm-2", // a volume of LVM on LUKS on a partition of RAID
		"devices/dm-2/slaves/md0p1":   "devices/md0/md0p1",
		"devices/dm-3/slaves/zram0":   "devices/zram0",
	})
	for _, c := range []struct {
		what         string
		major, minor uint32
		want         stack
	}{
		{"a disk", 8, 0, stack{prompt: true}},
		{"a partition", 8, 1, stack{prompt: true}},
		{"another disk", 259, 0, stack{prompt: true}},
		{"device mapper on both", 253, 0, stack{prompt: true}},
		{"md", 9, 0, stack{raid: true}},
		{"a partition of md", 259, 1, stack{raid: true}},
		{"device mapper above md", 253, 1, stack{raid: true}},
		{"a driver of which nothing is known", 252, 0, stack{}},
		{"device mapper on that", 253, 3, stack{}},
		{"a device that does not say what it is made of", 254, 0, stack{}},
		{"a device that is not there", 7, 7, stack{}},
	} {
		if got := stackOf(root, unix.Mkdev(c.major, c.minor)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

// On software RAID workers do everything: only they may be kept waiting.
func TestNoAsyncOnRAID(t *testing.T) {
	f := opened(t, newFile(t, t.TempDir(), mib), Options{Mode: Workers})
	f.openAsync(stack{raid: true})
	if async, why := f.Async(); async || !strings.Contains(why, "md") {
		t.Errorf("asynchronous: %t, %q", async, why)
	}
	fillDisk(t, f)
}

// The sysfs of this machine is as the one above: all of it can be looked at.
func TestStacksOfThisMachine(t *testing.T) {
	all, err := filepath.Glob(sysfs + "/dev/block/*")
	if err != nil || len(all) == 0 {
		t.Skipf("no block devices, %v", err)
	}
	for _, dir := range all {
		var s stack
		if err := s.add(dir); err != nil && exists(dir) { // one may go meanwhile
			t.Errorf("%s: %v", dir, err)
		}
	}
}
