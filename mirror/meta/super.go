package meta

import (
	"encoding/binary"
	"fmt"
	"strings"

	"hapair/mirror/actlog"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
)

// Placement says where the metadata of a volume is.
type Placement uint8

// The placements. The values are on disk.
const (
	Internal Placement = iota + 1 // at the end of the backing device, superblocks last
	External                      // at the start of a device or file of its own
)

// String returns DRBD's word.
func (p Placement) String() string {
	switch p {
	case Internal:
		return "internal"
	case External:
		return "external"
	}
	return "Invalid"
}

// Flags are what a superblock remembers of how things were left. The values are
// on disk.
type Flags uint32

const (
	// Clean: detached in order; the activity log needs no resync.
	Clean Flags = 1 << iota
	// WasPrimary: the volume was Primary here when this was written.
	WasPrimary
	// CrashedPrimary: it was, and went down without demoting; until a resync or the peer's word.
	CrashedPrimary
	// AssumeClean: the operator vouched at creation that both copies are equal.
	AssumeClean
	// FullSync: the bitmap is not to be trusted; everything is out of sync.
	FullSync

	allFlags = Clean | WasPrimary | CrashedPrimary | AssumeClean | FullSync
)

// String names the flags that are set.
func (f Flags) String() string {
	var out []string
	for i, name := range []string{"Clean", "WasPrimary", "CrashedPrimary", "AssumeClean", "FullSync"} {
		if f&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	if f&^allFlags != 0 {
		out = append(out, fmt.Sprintf("%#x", uint32(f&^allFlags)))
	}
	return strings.Join(out, ",")
}

// NameBytes is the longest name a superblock holds.
const NameBytes = 63

// Super is what the superblock says of one copy of one volume.
type Super struct {
	// Fixed at Create.
	Device        UUID
	Placement     Placement
	DataBytes     int64 // size of the volume
	ActivitySlots int

	// Whose it is. Names of at most NameBytes bytes.
	Cluster  string
	Resource string
	Volume   uint16
	Node     string
	Peer     string

	// What the copy is worth.
	Generations genid.Set
	Disk        state.Disk // of this copy
	Flags       Flags
	Token       uint64 // highest token seen
	Since       int64  // when the copy went on without its peer's, in seconds since 1970; 0: not known
	Elder       bool   // the node was Primary then, and before
	Sequence    uint64 // of superblock writes; kept by the Store
}

// Payload of a superblock, little-endian:
//
//	  0  bytesPerBit u32      4  extentBytes u32
//	  8  dataBytes   u64     16  areaStart   u64    24  areaEnd   u64
//	 32  ringOffset  u64     40  ringBlocks  u32    44  slots     u32
//	 48  bitmapOffset u64    56  bitmapPages u32    60  placement u8   61 disk u8  62 volume u16
//	 64  flags       u32     68  parted      u32    72  token     u64
//	 80  generations genid.Bytes
//	160  cluster, resource, node, peer: each one byte of length and NameBytes bytes
//
// parted is Elder in bit 0 and above it the seconds from 2020 to Since, 0 for
// not known; a release that did not know it wrote 0.
const superBytes = 160 + 4*(1+NameBytes)

// encodeSuper writes the superblock into block.
func encodeSuper(block []byte, s *Super, l *Layout) error {
	p := block[headerBytes:]
	le := binary.LittleEndian
	clear(p[:superBytes])
	le.PutUint32(p[0:], dirty.BlockBytes)
	le.PutUint32(p[4:], actlog.ExtentBytes)
	le.PutUint64(p[8:], uint64(s.DataBytes))
	le.PutUint64(p[16:], uint64(l.Start))
	le.PutUint64(p[24:], uint64(l.End))
	le.PutUint64(p[32:], uint64(l.RingOffset))
	le.PutUint32(p[40:], uint32(l.RingBlocks))
	le.PutUint32(p[44:], uint32(s.ActivitySlots))
	le.PutUint64(p[48:], uint64(l.BitmapOffset))
	le.PutUint32(p[56:], uint32(l.BitmapPages))
	p[60], p[61] = byte(s.Placement), byte(s.Disk)
	le.PutUint16(p[62:], s.Volume)
	le.PutUint32(p[64:], uint32(s.Flags))
	le.PutUint32(p[68:], packParted(s.Since, s.Elder))
	le.PutUint64(p[72:], s.Token)
	s.Generations.Marshal(p[80:])
	for i, name := range []string{s.Cluster, s.Resource, s.Node, s.Peer} {
		if len(name) > NameBytes {
			return fmt.Errorf("name %q has %d bytes, a superblock holds %d", name, len(name), NameBytes)
		}
		field := p[160+i*(1+NameBytes):]
		field[0] = byte(len(name))
		copy(field[1:], name)
	}
	seal(block, header{kind: typeSuper, device: s.Device, index: s.Sequence}, superBytes)
	return nil
}

// decodeSuper reads a superblock and the layout it states. The error wraps what
// unseal's does.
func decodeSuper(block []byte) (Super, Layout, error) {
	h, p, err := unseal(block, typeSuper)
	if err != nil {
		return Super{}, Layout{}, err
	}
	if len(p) != superBytes {
		return Super{}, Layout{}, fmt.Errorf("%w: superblock of %d bytes, want %d", ErrMalformed, len(p), superBytes)
	}
	le := binary.LittleEndian
	s := Super{
		Device: h.device, Sequence: h.index,
		Placement: Placement(p[60]), Disk: state.Disk(p[61]), Volume: le.Uint16(p[62:]),
		DataBytes: int64(le.Uint64(p[8:])), ActivitySlots: int(le.Uint32(p[44:])),
		Flags: Flags(le.Uint32(p[64:])), Token: le.Uint64(p[72:]),
	}
	s.Since, s.Elder = unpackParted(le.Uint32(p[68:]))
	l := Layout{
		Start: int64(le.Uint64(p[16:])), End: int64(le.Uint64(p[24:])),
		RingOffset: int64(le.Uint64(p[32:])), RingBlocks: int(le.Uint32(p[40:])),
		BitmapOffset: int64(le.Uint64(p[48:])), BitmapPages: int(le.Uint32(p[56:])),
	}
	if s.Generations, err = genid.Unmarshal(p[80:]); err != nil {
		return Super{}, Layout{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	for i, name := range []*string{&s.Cluster, &s.Resource, &s.Node, &s.Peer} {
		field := p[160+i*(1+NameBytes):][:1+NameBytes]
		if field[0] > NameBytes {
			return Super{}, Layout{}, fmt.Errorf("%w: superblock has a name of %d bytes", ErrMalformed, field[0])
		}
		*name = string(field[1 : 1+field[0]])
	}
	if bit, extent := le.Uint32(p), le.Uint32(p[4:]); bit != dirty.BlockBytes || extent != actlog.ExtentBytes {
		return Super{}, Layout{}, fmt.Errorf("%w: superblock has %d bytes per bit and %d per extent, want %d and %d",
			ErrMalformed, bit, extent, dirty.BlockBytes, actlog.ExtentBytes)
	}
	return s, l, s.judge(l)
}

// partedFrom is the beginning of 2020, from which Since is counted: 31 bits reach
// to 2088.
const partedFrom = 1577836800

func packParted(since int64, elder bool) (p uint32) {
	if after := since - partedFrom; after > 0 && after < 1<<31 {
		p = uint32(after) << 1
	}
	if elder {
		p |= 1
	}
	return p
}

func unpackParted(p uint32) (since int64, elder bool) {
	if after := int64(p >> 1); after > 0 {
		since = partedFrom + after
	}
	return since, p&1 != 0
}

// judge checks a decoded superblock against itself.
func (s *Super) judge(l Layout) error {
	switch {
	case s.Placement != Internal && s.Placement != External:
		return fmt.Errorf("%w: superblock has placement %d", ErrMalformed, s.Placement)
	case s.Disk > state.UpToDate:
		return fmt.Errorf("%w: superblock has disk state %d", ErrMalformed, s.Disk)
	case s.Flags&^allFlags != 0:
		return fmt.Errorf("%w: superblock has flags %s", ErrMalformed, s.Flags)
	case s.Device.IsZero():
		return fmt.Errorf("%w: superblock has no device UUID", ErrMalformed)
	}
	want, err := layoutOf(s.Placement, l.End, s.DataBytes, s.ActivitySlots)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	want.supers = l.supers
	if l != want {
		return fmt.Errorf("%w: superblock states the layout %+v, %d bytes of data and %d slots have %+v",
			ErrMalformed, l, s.DataBytes, s.ActivitySlots, want)
	}
	return nil
}
