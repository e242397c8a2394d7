package errno

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"hapair/mirror/block"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		op   block.Op
		err  error
		want syscall.Errno
	}{
		{block.Read, nil, 0},
		{block.Read, block.ErrIO, syscall.EIO},
		{block.Write, block.ErrNoSpace, syscall.ENOSPC},
		{block.Write, block.ErrRange, syscall.ENOSPC},
		{block.Discard, block.ErrRange, syscall.ENOSPC},
		{block.Read, block.ErrRange, syscall.EINVAL},
		{block.Read, block.ErrAlignment, syscall.EINVAL},
		{block.Read, block.ErrTooLong, syscall.EINVAL},
		{block.Write, block.ErrNotPrimary, syscall.EPERM},
		{block.Write, block.ErrSuspended, syscall.EIO},
		{block.Flush, block.ErrClosed, syscall.ESHUTDOWN},
		{block.WriteZeroes, block.ErrNotSupp, syscall.EOPNOTSUPP},
		{block.Write, errors.New("something else"), syscall.EIO},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("write of volume 0: %w", err)
		}
		if got := Of(c.op, err); got != c.want {
			t.Errorf("Of(%s, %v) = %v, want %v", c.op, c.err, got, c.want)
		}
	}
}
