// Package store is the backing disk of a volume: a block device or a regular
// file, as block.Disk. It uses direct I/O where the filesystem allows it.
//
// DESIGN.md has the goroutines, and the measurements behind the choice of
// carrying requests out inline or by workers.
package store

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
)

// Limits and defaults.
const (
	// DefaultWorkers is how many requests are carried out at once.
	DefaultWorkers = 32
	// MaxWorkers bounds Options.Workers.
	MaxWorkers = 1024
)

// Errors of Open. Match them with errors.Is.
var (
	ErrInUse   = errors.New("in use by another program")
	ErrMounted = errors.New("mounted")
	ErrKind    = errors.New("neither a block device nor a regular file")
)

// Mode says who carries requests out.
type Mode uint8

// The modes.
const (
	// Auto: the caller on a filesystem in memory; elsewhere the kernel,
	// asynchronously, with workers for what it does not do so.
	Auto Mode = iota
	// Workers: Submit returns at once.
	Workers
	// Inline: Submit carries a request out before it returns; flushes go to a worker.
	Inline
)

// Options tune a File. The zero Options are good.
type Options struct {
	Workers  int  // requests carried out at once by workers; 0 is DefaultWorkers
	Mode     Mode // who carries them out
	Buffered bool // never use direct I/O
	ReadOnly bool // writes fail; nothing is locked exclusively

	// Patience is how long Open tries again while another program has the disk; 0: not at all.
	Patience time.Duration
}

// File is an open backing disk. It is safe for concurrent use.
type File struct {
	path     string
	fd       int
	lock     *os.File // holds the descriptor, and with it the lock
	isBlock  bool
	dev      uint64 // its number, if it is one
	direct   bool
	directBy string // why direct I/O is not used
	inline   bool
	inMemory bool // nothing ever waits for stable storage
	readOnly bool
	geometry block.Geometry
	size     atomic.Int64 // instead of the geometry's, which is that of Open
	can      capabilities
	lost     atomic.Pointer[error] // the first failure of a sync; all later ones fail too

	allocate func(fd int, mode uint32, off, length int64) error // fallocate(2); tests have it fail

	closing atomic.Bool
	async   async // what the kernel carries out asynchronously
	queue   *queue
	workers sync.WaitGroup
	mu      struct {
		sync.Mutex // a request that is carried out inline enters, or Close does
		closed     bool
		inline     sync.WaitGroup
	}
}

// capabilities are found out by trying: once refused, not asked again.
type capabilities struct {
	noDsync, noPunch, noZero, noAsync atomic.Bool
}

// Open opens a block device or a regular file for the exclusive use of the
// caller: a block device by O_EXCL, which also keeps it from being mounted, a
// file by flock. The error wraps ErrInUse, ErrMounted (naming the mount point),
// ErrKind, or that of the system call. It blocks for Options.Patience at most, and
// for as long as the disk takes to be opened.
func Open(path string, o Options) (*File, error) {
	if o.Workers == 0 {
		o.Workers = DefaultWorkers
	}
	if o.Workers < 1 || o.Workers > MaxWorkers {
		return nil, fmt.Errorf("open backing disk %s: %d workers, want 1 to %d", path, o.Workers, MaxWorkers)
	}
	f := &File{path: path, readOnly: o.ReadOnly, allocate: unix.Fallocate}
	if err := f.openPatiently(o); err != nil {
		return nil, fmt.Errorf("open backing disk %s: %w", path, err)
	}
	f.queue = newQueue()
	for range o.Workers {
		f.workers.Go(f.work)
	}
	if o.Mode == Auto && f.direct && !f.inline {
		f.openAsync(f.below())
	}
	return f, nil
}

// Path is the path the disk was opened by.
func (f *File) Path() string { return f.path }

// Direct reports whether direct I/O is used, and if not, why.
func (f *File) Direct() (direct bool, why string) { return f.direct, f.directBy }

// IsBlockDevice reports whether the disk is a block device, not a file.
func (f *File) IsBlockDevice() bool { return f.isBlock }

// Async reports whether reads and writes are carried out by the kernel's
// asynchronous I/O, and if not, why.
func (f *File) Async() (async bool, why string) { return f.async.queue != nil, f.async.why }

// Geometry describes the disk as it was when it was opened, or last measured.
func (f *File) Geometry() block.Geometry {
	g := f.geometry
	g.SizeBytes = f.size.Load()
	return g
}

// Submit carries a request out, or hands it to the kernel or to a worker. It
// never waits for another request, so a Done may call it. Done gets an error
// that wraps one of block's and names the path and the request.
func (f *File) Submit(r *block.Request) {
	if err := f.check(r); err != nil {
		f.answer(r, err)
		return
	}
	switch {
	case f.inline && (f.inMemory || r.Op != block.Flush && r.Flags&block.FUA == 0):
		f.submitInline(r)
	case f.goesAsync(r):
		f.submitAsync(r)
	case !f.queue.put(r):
		f.answer(r, block.ErrClosed)
	}
}

func (f *File) submitInline(r *block.Request) {
	f.mu.Lock()
	if f.mu.closed {
		f.mu.Unlock()
		f.answer(r, block.ErrClosed)
		return
	}
	f.mu.inline.Add(1)
	f.mu.Unlock()
	f.answer(r, f.carryOut(r))
	f.mu.inline.Done()
}

func (f *File) check(r *block.Request) error {
	if f.readOnly && r.Op.Changes() {
		return fmt.Errorf("%s: opened read-only: %w", r, block.ErrNotSupp)
	}
	return block.Check(r, f.Geometry())
}

func (f *File) answer(r *block.Request, err error) { r.Answer(f.wrap(r, err)) }

func (f *File) wrap(r *block.Request, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("backing disk %s: %s: %w", f.path, r, err)
}

// work is a worker: it carries out requests until the queue is closed.
func (f *File) work() {
	for {
		r, ok := f.queue.get()
		if !ok {
			return
		}
		f.answer(r, f.carryOut(r))
	}
}

// Close refuses further requests, waits for those in flight and releases the
// disk. It does not flush. A Done that calls Close would wait for itself.
func (f *File) Close() error {
	if f.closing.Swap(true) {
		return fmt.Errorf("close backing disk %s: %w", f.path, block.ErrClosed)
	}
	// The kernel's first: what it could not do went to the workers.
	err := f.closeAsync()
	f.queue.close()
	f.mu.Lock()
	f.mu.closed = true
	f.mu.Unlock()
	f.workers.Wait()
	f.mu.inline.Wait()
	if err = errors.Join(err, f.lock.Close()); err != nil {
		return fmt.Errorf("close backing disk: %w", err)
	}
	return nil
}

// sentinel turns a system call's error into one of block's, keeping both.
func sentinel(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		return fmt.Errorf("%w: %w", block.ErrNoSpace, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", block.ErrNotSupp, err)
	}
	return fmt.Errorf("%w: %w", block.ErrIO, err)
}
