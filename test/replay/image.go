package replay

import (
	"fmt"

	"hapair/mirror/block"
)

// Image is what a disk held after a power cut: a block.Disk in memory, for one
// goroutine, whose writes nobody else sees. It is good until the Player steps.
type Image struct {
	size   int64
	stable map[int64][]byte
	over   map[int64][]byte
}

// Sector is what one sector holds.
func (m *Image) Sector(n int64) []byte {
	if b, ok := m.over[n]; ok {
		return b
	}
	if b, ok := m.stable[n]; ok {
		return b
	}
	return zeroes[:]
}

// Bytes is the whole image.
func (m *Image) Bytes() []byte {
	out := make([]byte, m.size)
	for _, layer := range []map[int64][]byte{m.stable, m.over} {
		for n, b := range layer {
			copy(out[n*block.SectorBytes:], b)
		}
	}
	return out
}

// Geometry is that of a disk with a volatile cache.
func (m *Image) Geometry() block.Geometry {
	return block.Geometry{SizeBytes: m.size, LogicalBlockBytes: block.SectorBytes, PhysicalBlockBytes: AtomicBytes,
		MaxTransferBytes: block.MaxTransferBytes, VolatileCache: true}
}

// Close does nothing.
func (m *Image) Close() error { return nil }

// Submit carries a request out at once.
func (m *Image) Submit(r *block.Request) { r.Answer(m.do(r)) }

func (m *Image) do(r *block.Request) error {
	if err := block.Check(r, m.Geometry()); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	for at := int64(0); at < r.Length; at += block.SectorBytes {
		n := (r.Offset + at) / block.SectorBytes
		switch r.Op {
		case block.Read:
			copy(r.Data[at:], m.Sector(n))
		case block.Write:
			m.over[n] = append([]byte(nil), r.Data[at:at+block.SectorBytes]...)
		default:
			m.over[n] = zeroes[:]
		}
	}
	return nil
}
