package meta

import (
	"errors"
	"strings"
	"testing"
)

// Each tool makes its thing on a sparse file; what Recognise says of it must be
// right, and Create must refuse internal metadata on a device that is full.
func TestRecogniseRealThings(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		kind  string
		size  int64
		bytes int64 // WholeDevice: reaches to the end
		tool  string
		args  []string
	}{
		{"ext2 filesystem", 16 * mib, 16 * mib, "mkfs.ext2", []string{"-q", "-F", "-b", "1024"}},
		{"ext3 filesystem", 16 * mib, 16 * mib, "mkfs.ext3", []string{"-q", "-F"}},
		{"ext4 filesystem", 64 * mib, 64 * mib, "mkfs.ext4", []string{"-q", "-F"}},
		{"xfs filesystem", 300 * mib, 300 * mib, "mkfs.xfs", []string{"-q"}},
		{"btrfs filesystem", 128 * mib, 128 * mib, "mkfs.btrfs", []string{"-q"}},
		{"swap area", 16 * mib, 16 * mib, "mkswap", nil},
		{"FAT filesystem", 16 * mib, 16 * mib, "mkfs.vfat", nil},
	} {
		t.Run(c.kind, func(t *testing.T) {
			d := made(t, c.size, c.size, c.tool, c.args...)
			head := d.data[:headBytes]
			got, ok := Recognise(head)
			if !ok || got.Kind != c.kind || got.Bytes != c.bytes {
				t.Fatalf("recognised %+v, %v; want %s of %d bytes", got, ok, c.kind, c.bytes)
			}
			p := params()
			p.Placement, p.DataBytes, p.ActivitySlots, p.Force = Internal, 0, 0, true
			if _, err := Create(d, p); !errors.Is(err, ErrWouldCut) || !strings.Contains(err.Error(), c.kind) {
				t.Fatalf("Create on a full device: %v", err)
			}
			d.data = append(d.data, make([]byte, Needed(c.size))...)
			s, err := Create(d, p)
			if err != nil || s.DataBytes < c.size {
				t.Fatalf("Create on a device that grew by what is needed: %v, %d bytes of data", err, s.DataBytes)
			}
		})
	}
}

func TestRecogniseMadeUp(t *testing.T) {
	head := func(at int, text string) []byte {
		b := make([]byte, headBytes)
		copy(b[at:], text)
		return b
	}
	pv := head(512, "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001")
	copy(pv[512+32+32:], "\x00\x00\x00\x40\x00\x00\x00\x00")
	btrfs := head(64<<10+0x40, "_BHRfS_M")
	copy(btrfs[64<<10+0xd1:], "\x00\x00\x00\x20")
	gpt := head(512, "EFI PART")
	copy(gpt[512+32:], "\xff\xff\x07")
	for name, c := range map[string]struct {
		head []byte
		want Contents
	}{
		"LVM":     {pv, Contents{"LVM physical volume", 1 << 30}},
		"btrfs":   {btrfs, Contents{"btrfs filesystem", 512 << 20}},
		"GPT":     {gpt, Contents{"GPT partition table", 0x80000 * 512}},
		"LUKS":    {head(0, "LUKS\xba\xbe\x00\x02"), Contents{"LUKS encrypted volume", WholeDevice}},
		"RAID":    {head(4096, "\xfc\x4e\x2b\xa9"), Contents{"Linux RAID member", WholeDevice}},
		"ZFS":     {head(129<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"), Contents{"ZFS pool member", WholeDevice}},
		"nothing": {head(0, "hello"), Contents{}},
		"short":   {[]byte("XFSB\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x01\x00"), Contents{"xfs filesystem", 1 << 20}},
		"absurd":  {head(0, "XFSB\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Contents{"xfs filesystem", WholeDevice}},
	} {
		if got, _ := Recognise(c.head); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestCutSaysByHowMuch(t *testing.T) {
	err := Contents{"ext4 filesystem", 1000}.cut(900)
	if !errors.Is(err, ErrWouldCut) || !strings.Contains(err.Error(), "by 100 bytes") {
		t.Fatal(err)
	}
	if err := (Contents{"ext4 filesystem", 900}).cut(900); err != nil {
		t.Fatal(err)
	}
}

func TestForeignMetadataDevice(t *testing.T) {
	d := newMemDisk(NeededFor(testData, testSlots))
	copy(d.data[1024+0x38:], "\x53\xef")
	if _, err := Create(d, params()); !errors.Is(err, ErrWouldCut) {
		t.Fatalf("over a filesystem on the metadata device: %v", err)
	}
	p := params()
	p.Force = true
	if _, err := Create(d, p); err != nil {
		t.Fatal(err)
	}
}
