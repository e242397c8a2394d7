package store

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/uring"
)

// ringEntries is how many requests the ring holds at once; what comes beyond
// goes to the workers.
const ringEntries = 256

// openRing decides who carries requests out, and says why.
func (f *File) openRing(o Options) error {
	switch o.IO {
	case IOAuto:
		f.ringWhy = "not the default: workers are as fast"
		return nil
	case IOWorkers:
		f.ringWhy = "not wanted"
		return nil
	case IOURing:
	default:
		return fmt.Errorf("unknown way to carry requests out: %d, want IOAuto, IOURing or IOWorkers", o.IO)
	}
	if o.Inline == InlineAlways {
		return errors.New("io_uring was asked for, and that requests are carried out inline")
	}
	f.inline = false
	if err := f.makeRing(); err != nil {
		return fmt.Errorf("io_uring was asked for: %w", err)
	}
	return nil
}

// makeRing gives the ring an open file of its own. The kernel lets go of a
// request's file a moment after it has announced the result: were that file the
// one with the lock, the disk would still be in use when Close has returned.
func (f *File) makeRing() error {
	flags := unix.O_RDWR
	if f.readOnly {
		flags = unix.O_RDONLY
	}
	if f.direct {
		flags |= unix.O_DIRECT
	}
	path := fmt.Sprintf("/proc/self/fd/%d", f.fd)
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s for io_uring: %w", path, err)
	}
	if f.ring, err = uring.New(fd, ringEntries, f.ringAnswer); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	f.ringFd = fd
	return nil
}

// closeRing waits for the ring's requests.
func (f *File) closeRing() error {
	if f.ring == nil {
		return nil
	}
	return errors.Join(f.ring.Close(), unix.Close(f.ringFd))
}

// submitRing reports false when a request is one for the workers.
func (f *File) submitRing(r *block.Request) bool {
	q := uring.Request{Data: r.Data, Offset: r.Offset, Owner: r}
	switch r.Op {
	case block.Read:
		q.Op = uring.Read
	case block.Write:
		q.Op = uring.Write
		if r.Flags&block.FUA != 0 {
			if f.can.noDsync.Load() {
				return false
			}
			q.Flags = unix.RWF_DSYNC
		}
	case block.Flush:
		if f.lost.Load() != nil {
			return false
		}
		q.Op = uring.Datasync
	default:
		return false
	}
	if f.direct && !block.IsAligned(r.Data) {
		return false
	}
	return f.ring.Submit(q)
}

// ringAnswer completes a request of the ring. What came to nothing, or to only a
// part, a worker does again from the start: nobody else has anything in flight
// there.
func (f *File) ringAnswer(owner any, res int32) {
	r, ok := owner.(*block.Request)
	if !ok {
		panic(fmt.Sprintf("store: the ring answers a %T", owner))
	}
	err := ringError(r, res)
	switch {
	case errors.Is(err, errAgain):
		if !f.queue.put(r) {
			f.answer(r, block.ErrClosed)
		}
		return
	case err != nil && r.Op == block.Flush:
		err = f.lose(err)
	}
	f.answer(r, err)
}

// errAgain is no failure of the disk.
var errAgain = errors.New("not carried out")

func ringError(r *block.Request, res int32) error {
	if res >= 0 {
		if r.Op == block.Flush || int64(res) == r.Length {
			return nil
		}
		return errAgain
	}
	switch err := unix.Errno(-res); err {
	case unix.EAGAIN, unix.EINTR, unix.ECANCELED, unix.ENOMEM, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS:
		return errAgain
	default:
		return sentinel(err)
	}
}
