// Package meta keeps the metadata of one volume on a disk: superblock, activity
// log and quick-sync bitmap. DESIGN.md tells the format and what a crash can do
// to it.
//
// The codec (header.go, super.go, activity.go, page.go) and the layout
// (layout.go) are pure; store.go, create.go and open.go do the I/O, through
// block.Disk.
package meta

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
)

// BlockBytes is the size and alignment of every block of metadata.
const BlockBytes = 4096

// FormatVersion is the format this package writes, and the only one it reads.
const FormatVersion = 1

// headerBytes is what every block begins with, little-endian:
//
//	 0  magic     "hapairMD"
//	 8  version   u16
//	10  type      u16
//	12  length    u32, of the payload
//	16  device    16 bytes, the UUID of the volume's copy
//	32  index     u64: sequence of a superblock, number of a transaction, number of a page
//	40  crc32c    u32, of the whole block with this field zero
//	44  reserved  u32, zero
const headerBytes = 48

const payloadMax = BlockBytes - headerBytes

const magic = "hapairMD"

// UUID names one copy of one volume; it is made at Create and is in every block.
type UUID [16]byte

// String writes the UUID in the usual groups.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// IsZero reports whether no UUID was given.
func (u UUID) IsZero() bool { return u == UUID{} }

// Errors of what was found on a disk. Match them with errors.Is; the text says
// what was found and where.
var (
	ErrNone      = errors.New("no metadata")                          // zeroes, or something that is not ours
	ErrTorn      = errors.New("metadata block is damaged")            // ours, with a wrong checksum
	ErrVersion   = errors.New("metadata has another format version")  // ours, of another release
	ErrForeign   = errors.New("metadata belongs to something else")   // intact, of another device, resource or node
	ErrMalformed = errors.New("metadata block is malformed")          // intact, with contents that make no sense
	ErrExists    = errors.New("metadata exists already")              // Create without Force
	ErrWouldCut  = errors.New("existing data would be overwritten")   // Create on a device that is full
	ErrTooSmall  = errors.New("device is too small for the metadata") // Create or Open
)

// blockType is what a block holds. ONLY APPEND.
type blockType uint16

const (
	typeSuper blockType = iota + 1
	typeActivity
	typeBitmap
)

func (t blockType) String() string {
	switch t {
	case typeSuper:
		return "superblock"
	case typeActivity:
		return "activity log block"
	case typeBitmap:
		return "bitmap page"
	}
	return fmt.Sprintf("block of type %d", uint16(t))
}

// header is the decoded head of a block.
type header struct {
	kind   blockType
	device UUID
	index  uint64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var zeroes [BlockBytes]byte

// checksum is the crc32c of a block with its checksum field zero.
func checksum(block []byte) uint32 {
	sum := crc32.Update(0, castagnoli, block[:40])
	sum = crc32.Update(sum, castagnoli, zeroes[:4])
	return crc32.Update(sum, castagnoli, block[44:BlockBytes])
}

// seal finishes a block whose payload of length bytes is in place: header,
// zeroes behind the payload, checksum.
func seal(block []byte, h header, length int) {
	copy(block, magic)
	binary.LittleEndian.PutUint16(block[8:], FormatVersion)
	binary.LittleEndian.PutUint16(block[10:], uint16(h.kind))
	binary.LittleEndian.PutUint32(block[12:], uint32(length))
	copy(block[16:32], h.device[:])
	binary.LittleEndian.PutUint64(block[32:], h.index)
	binary.LittleEndian.PutUint32(block[44:], 0)
	clear(block[headerBytes+length : BlockBytes])
	binary.LittleEndian.PutUint32(block[40:], checksum(block))
}

// unseal judges a block and returns its header and payload, which is part of
// block. The error wraps ErrNone, ErrTorn, ErrVersion or ErrMalformed.
func unseal(block []byte, want blockType) (h header, payload []byte, err error) {
	if len(block) != BlockBytes {
		return h, nil, fmt.Errorf("%w: a block of %d bytes, want %d", ErrMalformed, len(block), BlockBytes)
	}
	if string(block[:8]) != magic {
		return h, nil, fmt.Errorf("%w: %s where the %s should be", ErrNone, looksLike(block), want)
	}
	if sum, found := checksum(block), binary.LittleEndian.Uint32(block[40:]); sum != found {
		return h, nil, fmt.Errorf("%w: checksum of the %s is %08x, its contents have %08x", ErrTorn, want, found, sum)
	}
	if v := binary.LittleEndian.Uint16(block[8:]); v != FormatVersion {
		return h, nil, fmt.Errorf("%w: the %s is of version %d, this program reads %d", ErrVersion, want, v, FormatVersion)
	}
	h.kind = blockType(binary.LittleEndian.Uint16(block[10:]))
	copy(h.device[:], block[16:32])
	h.index = binary.LittleEndian.Uint64(block[32:])
	length := binary.LittleEndian.Uint32(block[12:])
	switch {
	case h.kind != want:
		return h, nil, fmt.Errorf("%w: a %s where a %s should be", ErrMalformed, h.kind, want)
	case length > payloadMax:
		return h, nil, fmt.Errorf("%w: %s claims %d bytes, at most %d fit", ErrMalformed, want, length, payloadMax)
	}
	return h, block[headerBytes : headerBytes+length], nil
}

// looksLike describes a block that is not ours, for a refusal.
func looksLike(block []byte) string {
	if string(block) == string(zeroes[:len(block)]) {
		return "only zeroes"
	}
	if name := drbdMetadata(block); name != "" {
		return name
	}
	return fmt.Sprintf("something that begins with % x", block[:8])
}

// drbdMetadata recognises the superblock of DRBD 8 and 9: its magic number is
// big-endian at byte 60.
func drbdMetadata(block []byte) string {
	switch binary.BigEndian.Uint32(block[60:]) {
	case 0x8374026b, 0x8374026c:
		return "a metadata superblock of DRBD 8"
	case 0x8374026d:
		return "a metadata superblock of DRBD 9"
	}
	return ""
}
