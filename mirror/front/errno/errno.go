// Package errno translates the sentinel errors of mirror/block into the error
// numbers a kernel or a protocol gives to an application. It is the one place
// where that choice is made, so that every front end fails alike.
package errno

import (
	"errors"
	"syscall"

	"hapair/mirror/block"
)

// table is searched in order; what is not in it is EIO.
var table = []struct {
	err    error
	number syscall.Errno
}{
	{block.ErrIO, syscall.EIO},
	{block.ErrNoSpace, syscall.ENOSPC},
	{block.ErrAlignment, syscall.EINVAL},
	{block.ErrTooLong, syscall.EINVAL},
	{block.ErrNotSupp, syscall.EOPNOTSUPP},
	{block.ErrNotPrimary, syscall.EPERM},
	{block.ErrClosed, syscall.ESHUTDOWN},
	// Frozen I/O that is failed instead of kept waiting is a failed I/O to
	// the application: file systems know what to do with EIO only.
	{block.ErrSuspended, syscall.EIO},
}

// Of returns the error number for the outcome err of a request of kind op: 0
// for nil, EIO for an error it does not know.
//
// A request past the end follows the block layer: ENOSPC for what changes the
// device, EINVAL for what does not.
func Of(op block.Op, err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errors.Is(err, block.ErrRange) {
		if op.Changes() {
			return syscall.ENOSPC
		}
		return syscall.EINVAL
	}
	for _, row := range table {
		if errors.Is(err, row.err) {
			return row.number
		}
	}
	return syscall.EIO
}
