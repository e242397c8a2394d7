package export

import (
	"math"
	"syscall"

	"hapair/mirror/block"
)

// flagsOf lists the flags each command may carry.
func flagsOf(kind uint16) uint16 {
	switch kind {
	case cmdRead:
		return flagDF | flagFUA
	case cmdWrite, cmdTrim:
		return flagFUA
	case cmdWriteZeroes:
		return flagFUA | flagNoHole
	}
	return flagFUA
}

// refuse judges a request against the geometry before anything is taken for
// it. 0 means it may go ahead; flush and what the server does not know are
// judged here too. Disconnect is none of its business.
func refuse(q request, g block.Geometry) syscall.Errno {
	switch q.kind {
	case cmdFlush:
		return 0
	case cmdRead, cmdWrite, cmdTrim, cmdWriteZeroes:
	default:
		return syscall.EINVAL
	}
	if q.kind == cmdWriteZeroes && q.flags&flagFastZero != 0 {
		return syscall.EOPNOTSUPP // zeroes may be as slow as writes here
	}
	if q.flags&^flagsOf(q.kind) != 0 {
		return syscall.EINVAL
	}
	if (q.kind == cmdRead || q.kind == cmdWrite) && q.length > requestBytesMax {
		return syscall.EINVAL
	}
	unit := uint64(g.LogicalBlockBytes)
	if q.length == 0 || q.offset%unit != 0 || uint64(q.length)%unit != 0 {
		return syscall.EINVAL
	}
	if q.offset > math.MaxInt64 || q.offset > uint64(g.SizeBytes) || uint64(q.length) > uint64(g.SizeBytes)-q.offset {
		if q.kind == cmdRead {
			return syscall.EINVAL
		}
		return syscall.ENOSPC
	}
	return 0
}

// translate gives the block layer's operation and flags of a request that was
// not refused.
func translate(q request) (block.Op, block.Flags) {
	var flags block.Flags
	if q.flags&flagFUA != 0 {
		flags = block.FUA
	}
	switch q.kind {
	case cmdRead:
		return block.Read, 0
	case cmdWrite:
		return block.Write, flags
	case cmdTrim:
		return block.Discard, flags
	case cmdWriteZeroes:
		if q.flags&flagNoHole != 0 {
			flags |= block.NoUnmap
		}
		return block.WriteZeroes, flags
	}
	return block.Flush, 0
}
