package meta

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// made is a device of which a tool has put something on the first part; of that
// its head is there. The test is skipped where there is no such tool.
func made(t *testing.T, part, size int64, tool string, args ...string) *memDisk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "device")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, part)); err != nil {
		t.Fatal(err)
	}
	run(t, tool, append(args, path)...)
	d := newMemDisk(size)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // only read
	if _, err := f.ReadAt(d.data[:headBytes], 0); err != nil {
		t.Fatal(err)
	}
	return d
}

func run(t *testing.T, tool string, args ...string) {
	t.Helper()
	program, err := exec.LookPath(tool)
	if err != nil {
		if program, err = exec.LookPath("/sbin/" + tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", tool, err, out)
	}
}

// Real things may be cut down to where they end, and not by a block more; what
// does not say where it ends, or may not say the truth, not at all.
func TestMayCutRealThings(t *testing.T) {
	const mib = 1 << 20
	const size = 320 * mib // of the device
	for _, c := range []struct {
		name string
		ends int64
		say  string
		all  bool // it cannot be cut at all
		tool string
		args []string
	}{
		{"ext4", 40 * mib, "ext4 filesystem of 41943040 bytes, 41938944 would cut it by 4096: e2fsck -f, then resize2fs first", false, "mkfs.ext4", []string{"-q", "-F", "-b", "4096"}},
		{"ext2", 16 * mib, "ext2 filesystem", false, "mkfs.ext2", []string{"-q", "-F"}},
		{"xfs", 300 * mib, "whose log may say another size", true, "mkfs.xfs", []string{"-q"}},
		{"btrfs", 128 * mib, "btrfs filesystem", false, "mkfs.btrfs", []string{"-q"}},
		{"f2fs", 64 * mib, "f2fs filesystem", false, "mkfs.f2fs", []string{"-q"}},
		{"swap", 16 * mib, "swap area", false, "mkswap", []string{"-q"}},
		{"FAT", 16 * mib, "FAT filesystem", false, "mkfs.vfat", nil},
		{"LUKS", 32 * mib, "LUKS encrypted volume, which reaches to its end", true, "cryptsetup", []string{"luksFormat", "-q", "--key-file", "/proc/self/exe", "--keyfile-size", "8"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := made(t, c.ends, size, c.tool, c.args...)
			if err := MayCut(d, size, c.ends); (err != nil) != c.all {
				t.Errorf("down to its end: %v", err)
			}
			if err := MayCut(d, size, c.ends-BlockBytes); !errors.Is(err, ErrCutOff) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("a block more: %v", err)
			}
		})
	}
}

// An ext4 whose journal is to be replayed may have another size than it says.
func TestMayCutOfAMountedFilesystem(t *testing.T) {
	for name, spoil := range map[string]func(sb []byte){
		"journal": func(sb []byte) { sb[0x60] |= 4 },
		"state":   func(sb []byte) { sb[0x3a] &^= 1 },
	} {
		d := made(t, 16<<20, 32<<20, "mkfs.ext4", "-q", "-F")
		if err := MayCut(d, 32<<20, 24<<20); err != nil {
			t.Fatal(err)
		}
		spoil(d.data[1024:])
		if err := MayCut(d, 32<<20, 24<<20); !errors.Is(err, ErrCutOff) || !strings.Contains(err.Error(), "not unmounted") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMayCutMadeUp(t *testing.T) {
	const size = 64 << 20
	with := func(at int64, text string) *memDisk {
		d := newMemDisk(size)
		copy(d.data[at:], text)
		return d
	}
	mbr := newMemDisk(size)
	copy(mbr.data[510:], "\x55\xaa")
	mbr.data[446+4] = 0x83
	binary.LittleEndian.PutUint32(mbr.data[446+8:], 2048)
	binary.LittleEndian.PutUint32(mbr.data[446+12:], 30<<20/512-2048)
	jfs := newMemDisk(size)
	copy(jfs.data, mbr.data[:512])
	copy(jfs.data[32<<10:], "JFS1")
	empty := with(510, "\x55\xaa")
	boot := with(446, "not a table")
	copy(boot.data[510:], "\x55\xaa")
	both := made(t, 16<<20, size, "mkfs.ext4", "-q", "-F")
	copy(both.data[0:], "LUKS\xba\xbe")
	for name, c := range map[string]struct {
		disk *memDisk
		to   int64
		say  string // "": it may be cut
	}{
		"blank":                    {newMemDisk(size), size - 4096, "nothing that is known"},
		"something else":           {with(4096, "a database that needs no filesystem"), size - 4096, "nothing that is known"},
		"partitions":               {mbr, 30 << 20, ""},
		"partitions, too small":    {mbr, 30<<20 - 4096, "MBR partition table"},
		"boot sector, none":        {empty, size - 4096, "nothing that is known"},
		"boot sector, other":       {boot, size - 4096, "nothing that is known"},
		"RAID 1.0, at the end":     {with(size-8192, "\xfc\x4e\x2b\xa9"), size - 4096, "Linux RAID member"},
		"two signatures":           {both, 32 << 20, "LUKS"},
		"beside old partitions":    {jfs, 30 << 20, "JFS filesystem, which reaches to its end"},
		"all of a small volume":    {with(0, "x"), 4096, "nothing that is known"},
		"an LVM that says nothing": {with(512, "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001"), size - 4096, "reaches to its end"},
	} {
		err := MayCut(c.disk, size, c.to)
		if c.say == "" && err != nil || c.say != "" && (!errors.Is(err, ErrCutOff) || !strings.Contains(err.Error(), c.say)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever lies there, nothing may be cut that some probe says reaches farther.
func FuzzMayCut(f *testing.F) {
	for _, text := range []string{"XFSB", "LUKS\xba\xbe", "LABELONE"} {
		f.Add([]byte(text), 0, int64(1<<20))
	}
	f.Add([]byte{0x53, 0xef, 1, 0}, 1024+0x38, int64(4096))
	f.Add([]byte("\x10\x20\xf5\xf2"), 1024, int64(1<<30))
	f.Add([]byte("\x55\xaa"), 510, int64(8192))
	f.Add([]byte("\x00\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x00\x01\x00"), 446, int64(1<<25))
	f.Fuzz(func(t *testing.T, b []byte, at int, size int64) {
		if at < 0 || at > headBytes || size <= 0 {
			return
		}
		head := make([]byte, headBytes)
		copy(head[at:], b)
		err := judgeCut(head, nil, 4096, size)
		if err != nil && !errors.Is(err, ErrCutOff) {
			t.Fatal(err)
		}
		c, known := Recognise(head)
		if err == nil && (!known || c.Bytes > size) {
			t.Fatalf("%+v may be cut to %d bytes", c, size)
		}
	})
}
