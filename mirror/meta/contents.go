package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// Contents is something recognised on a device.
type Contents struct {
	Kind  string // "ext4 filesystem", "swap area", …
	Bytes int64  // from the start of the device to its end; WholeDevice when it says nothing of its end
}

// WholeDevice is the size of contents that reach to the end of any device.
const WholeDevice = math.MaxInt64

// headBytes is how much of a device Recognise looks at.
const headBytes = 132 << 10

// probes are tried in this order; the first that answers counts. Each is handed
// at least headBytes, zero-filled.
var probes = []func(head []byte) (Contents, bool){
	probeLUKS, probeLVM, probeMD, probeExt, probeXFS, probeBtrfs, probeF2FS, probeSwap, probeNTFS, probeExFAT, probeZFS, probeGPT, probeFAT, probeMBR,
}

// Recognise names what the first bytes of a device hold: a filesystem, a swap
// area, an LVM physical volume, a partition table, an encrypted volume, a RAID
// member. Not everything can be recognised.
func Recognise(head []byte) (Contents, bool) {
	if len(head) < headBytes {
		head = append(bytes.Clone(head), make([]byte, headBytes-len(head))...)
	}
	for _, probe := range probes {
		if c, ok := probe(head); ok {
			return c, true
		}
	}
	return Contents{}, false
}

// times is units*size, or WholeDevice when that is no sensible number.
func times(units, size uint64) int64 {
	hi, lo := bits.Mul64(units, size)
	if hi != 0 || lo > math.MaxInt64 || lo == 0 {
		return WholeDevice
	}
	return int64(lo)
}

func probeExt(head []byte) (Contents, bool) {
	sb := head[1024:]
	le := binary.LittleEndian
	if le.Uint16(sb[0x38:]) != 0xef53 {
		return Contents{}, false
	}
	blocks := uint64(le.Uint32(sb[4:]))
	compat, incompat := le.Uint32(sb[0x5c:]), le.Uint32(sb[0x60:])
	if incompat&0x80 != 0 { // 64bit
		blocks |= uint64(le.Uint32(sb[0x150:])) << 32
	}
	kind := "ext2 filesystem"
	switch {
	case incompat&(0x40|0x80|0x200) != 0: // extents, 64bit, flex_bg
		kind = "ext4 filesystem"
	case compat&4 != 0: // has_journal
		kind = "ext3 filesystem"
	}
	shift := le.Uint32(sb[0x18:])
	if shift > 6 {
		return Contents{kind, WholeDevice}, true
	}
	return Contents{kind, times(blocks, 1024<<shift)}, true
}

// xfsKind is a filesystem that has no clean flag.
const xfsKind = "xfs filesystem"

func probeXFS(head []byte) (Contents, bool) {
	if string(head[:4]) != "XFSB" {
		return Contents{}, false
	}
	be := binary.BigEndian
	return Contents{xfsKind, times(be.Uint64(head[8:]), uint64(be.Uint32(head[4:])))}, true
}

func probeBtrfs(head []byte) (Contents, bool) {
	sb := head[64<<10:]
	if string(sb[0x40:0x48]) != "_BHRfS_M" {
		return Contents{}, false
	}
	// dev_item of this device at 0xc9: devid, total_bytes.
	return Contents{"btrfs filesystem", times(binary.LittleEndian.Uint64(sb[0xd1:]), 1)}, true
}

func probeSwap(head []byte) (Contents, bool) {
	for _, page := range []int{4096, 8192, 16384, 65536} {
		if string(head[page-10:page]) == "SWAPSPACE2" {
			last := uint64(binary.LittleEndian.Uint32(head[1028:]))
			return Contents{"swap area", times(last+1, uint64(page))}, true
		}
	}
	return Contents{}, false
}

func probeLVM(head []byte) (Contents, bool) {
	for at := 0; at < 4*512; at += 512 {
		label := head[at:]
		if string(label[:8]) != "LABELONE" || string(label[24:32]) != "LVM2 001" {
			continue
		}
		header := binary.LittleEndian.Uint32(label[20:])
		if header > 512-40 {
			return Contents{"LVM physical volume", WholeDevice}, true
		}
		return Contents{"LVM physical volume", times(binary.LittleEndian.Uint64(label[header+32:]), 1)}, true
	}
	return Contents{}, false
}

func probeLUKS(head []byte) (Contents, bool) {
	return Contents{"LUKS encrypted volume", WholeDevice}, string(head[:6]) == "LUKS\xba\xbe"
}

func probeMD(head []byte) (Contents, bool) {
	const magic = 0xa92b4efc
	found := binary.LittleEndian.Uint32(head) == magic || binary.LittleEndian.Uint32(head[4096:]) == magic
	return Contents{"Linux RAID member", WholeDevice}, found
}

func probeZFS(head []byte) (Contents, bool) {
	found := false
	for at := 128 << 10; at+8 <= len(head); at += 1024 { // uberblocks of the first label
		found = found || binary.LittleEndian.Uint64(head[at:]) == 0x00bab10c
	}
	return Contents{"ZFS pool member", WholeDevice}, found
}

func probeGPT(head []byte) (Contents, bool) {
	for _, sector := range []int{512, 4096} {
		if string(head[sector:sector+8]) == "EFI PART" {
			last := binary.LittleEndian.Uint64(head[sector+32:]) // the backup header
			return Contents{"GPT partition table", times(last+1, uint64(sector))}, true
		}
	}
	return Contents{}, false
}

func probeNTFS(head []byte) (Contents, bool) {
	if string(head[3:11]) != "NTFS    " {
		return Contents{}, false
	}
	sector := uint64(binary.LittleEndian.Uint16(head[11:]))
	return Contents{"NTFS filesystem", times(binary.LittleEndian.Uint64(head[40:])+1, sector)}, true
}

func probeExFAT(head []byte) (Contents, bool) {
	if string(head[3:11]) != "EXFAT   " || head[108] > 12 {
		return Contents{}, false
	}
	return Contents{"exFAT filesystem", times(binary.LittleEndian.Uint64(head[72:]), 1<<head[108])}, true
}

func probeFAT(head []byte) (Contents, bool) {
	if string(head[54:57]) != "FAT" && string(head[82:85]) != "FAT" || head[510] != 0x55 || head[511] != 0xaa {
		return Contents{}, false
	}
	sectors := uint64(binary.LittleEndian.Uint16(head[19:]))
	if sectors == 0 {
		sectors = uint64(binary.LittleEndian.Uint32(head[32:]))
	}
	return Contents{"FAT filesystem", times(sectors, uint64(binary.LittleEndian.Uint16(head[11:])))}, true
}

func probeF2FS(head []byte) (Contents, bool) {
	sb, le := head[1024:], binary.LittleEndian
	if le.Uint32(sb) != 0xf2f52010 {
		return Contents{}, false
	}
	shift := le.Uint32(sb[16:])
	if shift > 16 {
		return Contents{"f2fs filesystem", WholeDevice}, true
	}
	return Contents{"f2fs filesystem", times(le.Uint64(sb[36:]), 1<<shift)}, true
}

// mbrKind is a table whose numbers count logical sectors.
const mbrKind = "MBR partition table"

// probeMBR knows a boot sector with partitions: what else ends with its two bytes
// has other things where these stand.
func probeMBR(head []byte) (Contents, bool) {
	if head[510] != 0x55 || head[511] != 0xaa {
		return Contents{}, false
	}
	var end uint64
	for at := 446; at < 510; at += 16 {
		p := head[at : at+16]
		switch first, count := binary.LittleEndian.Uint32(p[8:]), binary.LittleEndian.Uint32(p[12:]); {
		case p[0]&0x7f != 0:
			return Contents{}, false
		case p[4] != 0:
			end = max(end, uint64(first)+uint64(count))
		}
	}
	if end == 0 {
		return Contents{}, false
	}
	return Contents{mbrKind, times(end, 512)}, true
}

// cut judges whether contents survive when only dataBytes of a device remain.
func (c Contents) cut(dataBytes int64) error {
	switch {
	case c.Bytes == WholeDevice:
		return fmt.Errorf("%w: the device holds a %s, which reaches to its end: use external metadata, or wipe it (wipefs -a)",
			ErrWouldCut, c.Kind)
	case c.Bytes > dataBytes:
		return fmt.Errorf("%w: the device holds a %s of %d bytes and %d would remain: shrink it by %d bytes, grow the device, or use external metadata",
			ErrWouldCut, c.Kind, c.Bytes, dataBytes, c.Bytes-dataBytes)
	}
	return nil
}
