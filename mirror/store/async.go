package store

import (
	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/store/aio"
)

// asyncDepth is how many reads and writes the kernel has at once; more wait.
// The kernel's bound for all processes is /proc/sys/fs/aio-max-nr, 65536.
const asyncDepth = 512

// async is the asynchronous side of a File.
type async struct {
	queue   *aio.Queue    // nil: everything goes to workers
	why     string        // because of this
	refused func(aio.Op)  // bound once
	answers block.Answers // the reaper's
}

// below is what the disk is made of. Nothing is known of a file: its filesystem may
// wait, for its journal or to be thawed.
func (f *File) below() stack {
	if f.isBlock {
		return stackOf(sysfs, f.dev)
	}
	return stack{}
}

// openAsync makes the queue; without one, workers do everything.
func (f *File) openAsync(below stack) {
	f.async.refused = f.asyncRefused
	if below.raid {
		f.async.why = "it is on software RAID (md), whose writes may wait for its superblocks whatever they are told"
		return
	}
	q, err := aio.New(f.fd, asyncDepth, !below.prompt, f.asyncEnded)
	if err != nil {
		f.async.why = err.Error()
		return
	}
	f.async.queue = q
}

func (f *File) closeAsync() error {
	if f.async.queue == nil {
		return nil
	}
	f.Unplug()
	return f.async.queue.Close()
}

// goesAsync reports whether the kernel can carry a request out asynchronously:
// flushes and ranges it cannot, other memory must go through a buffer.
func (f *File) goesAsync(r *block.Request) bool {
	return f.async.queue != nil && (r.Op == block.Read || r.Op == block.Write) && block.IsAligned(r.Data) &&
		!f.can.noAsync.Load() && (r.Flags&block.FUA == 0 || !f.can.noDsync.Load())
}

// submitAsync queues a request, and starts it unless more follow. The kernel is
// told not to wait on the caller's thread: what it would have to wait for, as
// for room in a file with holes, a worker does.
func (f *File) submitAsync(r *block.Request) {
	op := aio.Op{Write: r.Op == block.Write, RWF: unix.RWF_NOWAIT, Offset: r.Offset, Data: r.Data, Tag: r}
	if op.Write && r.Flags&block.FUA != 0 {
		op.RWF |= unix.RWF_DSYNC
	}
	plugged := r.Plugged
	if !f.async.queue.Add(op) {
		f.answer(r, block.ErrClosed)
		return
	}
	if !plugged {
		f.Unplug()
	}
}

// Unplug starts the requests that were kept back.
func (f *File) Unplug() {
	if q := f.async.queue; q != nil {
		q.Start(f.async.refused)
	}
}

// asyncRefused: the kernel does not take such a request from this descriptor,
// or not now. A worker carries it out, or finds the true error.
func (f *File) asyncRefused(op aio.Op) {
	if op.Err != unix.EAGAIN {
		f.can.noAsync.Store(true)
	}
	f.byWorker(op.Tag.(*block.Request))
}

func (f *File) byWorker(r *block.Request) {
	if !f.queue.put(r) {
		f.answer(r, block.ErrClosed)
	}
}

// asyncEnded takes the ends of a series of requests.
func (f *File) asyncEnded(ops []aio.Op) {
	for i := range ops {
		r := ops[i].Tag.(*block.Request)
		switch err := ops[i].Err; {
		case err == nil && ops[i].N == len(r.Data):
			f.async.answers.Done(r, nil)
		case err == nil, err == unix.EAGAIN, err == unix.EINTR, err == unix.EINVAL, isUnsupported(err):
			// Not wholly done, or not in this way: from the beginning, waiting
			// as long as it takes.
			f.byWorker(r)
		default:
			f.async.answers.Done(r, f.wrap(r, sentinel(err)))
		}
	}
	f.async.answers.Flush()
	f.Unplug()
}
