package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"hapair/mirror/block"
)

// tailBytes is how much of the end of a volume is looked at: some RAID members
// have their superblock there.
const tailBytes = 128 << 10

// ErrCutOff: a volume made smaller would lose what it holds.
var ErrCutOff = errors.New("the end of what it holds would be cut off")

// MayCut refuses to make a volume of dataBytes smaller when that could cut what it
// holds. The error wraps ErrCutOff and says what was found and what it would
// lose. What is not recognised, and what cannot be told exactly, counts as in use:
// no sample proves that nobody needs a range.
func MayCut(disk block.Disk, dataBytes, size int64) error {
	head, err := readPart(disk, 0, min(headBytes, dataBytes/BlockBytes*BlockBytes))
	if err != nil {
		return err
	}
	from := max(dataBytes-tailBytes, 0) / BlockBytes * BlockBytes
	tail, err := readPart(disk, from, dataBytes/BlockBytes*BlockBytes-from)
	if err != nil {
		return err
	}
	return judgeCut(head, tail, disk.Geometry().LogicalBlockBytes, size)
}

func readPart(disk block.Disk, offset, length int64) ([]byte, error) {
	out := make([]byte, 0, length)
	err := readRange(disk, offset, length, func(_ int64, data []byte) error {
		out = append(out, data...)
		return nil
	})
	return out, err
}

// judgeCut judges by all that is recognised, not by the first: an old signature
// may be there beside the one that counts.
func judgeCut(head, tail []byte, sectorBytes int, size int64) error {
	if len(head) < headBytes {
		head = append(bytes.Clone(head), make([]byte, headBytes-len(head))...)
	}
	var found []Contents
	for _, probe := range probes {
		c, ok := probe(head)
		if ok && c.Kind == mbrKind && c.Bytes != WholeDevice {
			c.Bytes = times(uint64(c.Bytes), uint64(max(sectorBytes, 512)/512))
		}
		if ok {
			found = append(found, c)
		}
	}
	found = append(found, endless(head)...)
	if endsWithRAID(tail) {
		found = append(found, Contents{"Linux RAID member", WholeDevice})
	}
	var why []string
	for _, c := range found {
		if text := c.loses(head, size); text != "" {
			why = append(why, text)
		}
	}
	if len(found) == 0 {
		why = append(why, "nothing that is known here (a filesystem, swap, LVM, LUKS, RAID, a partition table), so all of it counts as in use")
	}
	if len(why) > 0 {
		return fmt.Errorf("%w: it holds %s", ErrCutOff, strings.Join(why, "; "))
	}
	return nil
}

// shrinks is what makes contents smaller, by their kind.
var shrinks = map[string]string{
	"ext2 filesystem": "e2fsck -f, then resize2fs", "ext3 filesystem": "e2fsck -f, then resize2fs", "ext4 filesystem": "e2fsck -f, then resize2fs",
	"btrfs filesystem": "btrfs filesystem resize", "swap area": "mkswap with a size", "LVM physical volume": "pvresize --setphysicalvolumesize",
	"NTFS filesystem": "ntfsresize", "f2fs filesystem": "resize.f2fs -s",
}

// loses says what contents lose by a size, "" when they end before. A superblock may
// not be the truth, because a journal says more.
func (c Contents) loses(head []byte, size int64) string {
	how, ok := shrinks[c.Kind]
	if ok {
		how = ": " + how + " first"
	}
	switch {
	case c.Kind == xfsKind:
		return c.Kind + ", whose log may say another size than its superblock"
	case strings.HasPrefix(c.Kind, "ext") && unsettled(head):
		return c.Kind + " that was not unmounted, so its size is not certain: e2fsck -f first"
	case c.Bytes == WholeDevice:
		return c.Kind + ", which reaches to its end"
	case c.Bytes > size:
		return fmt.Sprintf("%s of %d bytes, %d would cut it by %d%s", c.Kind, c.Bytes, size, c.Bytes-size, how)
	}
	return ""
}

// unsettled: the journal of an ext filesystem is to be replayed, or it is in use.
func unsettled(head []byte) bool {
	sb, le := head[1024:], binary.LittleEndian
	return le.Uint16(sb[0x38:]) == 0xef53 && (le.Uint32(sb[0x60:])&4 != 0 || le.Uint16(sb[0x3a:])&1 == 0)
}

// endlessSigns are signatures of what is not asked where it ends, so that what it left
// in place of the boot sector is not believed instead.
var endlessSigns = []struct {
	kind string
	at   int
	sign string
}{
	{"JFS filesystem", 32 << 10, "JFS1"},
	{"ReiserFS filesystem", 64<<10 + 52, "ReIsEr"},
	{"NILFS2 filesystem", 1024 + 6, "\x34\x34"},
	{"GFS2 filesystem", 64 << 10, "\x01\x16\x19\x70"},
	{"OCFS2 filesystem", 2 * 512, "OCFSV2"}, {"OCFS2 filesystem", 2 * 1024, "OCFSV2"}, {"OCFS2 filesystem", 2 * 2048, "OCFSV2"}, {"OCFS2 filesystem", 2 * 4096, "OCFSV2"},
	{"bcache or bcachefs member", 4096 + 24, "\xc6\x85\x73\xf6"},
	{"ISO 9660 or UDF filesystem", 32<<10 + 1, "CD001"}, {"UDF filesystem", 32<<10 + 1, "BEA01"},
	{"squashfs filesystem", 0, "hsqs"},
	{"EROFS filesystem", 1024, "\xe2\xe1\xf5\xe0"},
	{"VDO volume", 0, "dmvdo001"},
	{"Stratis member", 512 + 4, "!Stra0tis"},
	{"Ceph OSD", 0, "bluestore block device"},
	{"Oracle ASM disk", 32, "ORCLDISK"},
	{"suspended system", 4096 - 10, "S1SUSPEND"},
}

func endless(head []byte) (found []Contents) {
	for _, s := range endlessSigns {
		if string(head[s.at:s.at+len(s.sign)]) == s.sign {
			found = append(found, Contents{s.kind, WholeDevice})
		}
	}
	return found
}

// endsWithRAID looks for the superblocks of the formats 0.90 and 1.0.
func endsWithRAID(tail []byte) bool {
	for at := 0; at+BlockBytes <= len(tail); at += BlockBytes {
		if binary.LittleEndian.Uint32(tail[at:]) == 0xa92b4efc {
			return true
		}
	}
	return false
}
