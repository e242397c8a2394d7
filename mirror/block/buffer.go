package block

import (
	"sync"
	"unsafe"
)

// AlignBytes is the alignment of every pooled buffer: what direct I/O wants of
// memory on every file system and device we know (a logical block of at most
// 4096 bytes).
const AlignBytes = 4096

// sizeClasses are the capacities of pooled buffers, smallest first; the last
// is MaxTransferBytes.
var sizeClasses = [...]int{4 << 10, 16 << 10, 64 << 10, 256 << 10, MaxTransferBytes}

// Buffer is an aligned piece of memory from a pool.
type Buffer struct {
	full  []byte
	class int
}

var pools [len(sizeClasses)]sync.Pool

// GetBuffer returns a buffer whose Bytes(n) is aligned for direct I/O; its
// contents are arbitrary. n must be in [0, MaxTransferBytes].
func GetBuffer(n int) *Buffer {
	for i, size := range sizeClasses {
		if n <= size {
			if b, ok := pools[i].Get().(*Buffer); ok {
				return b
			}
			return &Buffer{full: Aligned(size), class: i}
		}
	}
	panic("block: buffer larger than MaxTransferBytes")
}

// Bytes returns the first n bytes.
func (b *Buffer) Bytes(n int) []byte { return b.full[:n] }

// Put gives the buffer back. It must not be used afterwards.
func (b *Buffer) Put() { pools[b.class].Put(b) }

// Aligned allocates n bytes that start at a multiple of AlignBytes.
func Aligned(n int) []byte {
	raw := make([]byte, n+AlignBytes)
	skip := 0
	if rest := int(uintptr(unsafe.Pointer(&raw[0])) & (AlignBytes - 1)); rest != 0 {
		skip = AlignBytes - rest
	}
	return raw[skip : skip+n : skip+n]
}

// IsAligned reports whether b may be used for direct I/O.
func IsAligned(b []byte) bool {
	return len(b) == 0 || uintptr(unsafe.Pointer(&b[0]))&(AlignBytes-1) == 0
}
