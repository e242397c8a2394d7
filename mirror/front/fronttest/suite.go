package fronttest

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/front"
)

// Client is a user of the offered device. Methods return the error number the
// user sees, as syscall.Errno. Buffers are aligned for direct I/O.
type Client interface {
	Read(p []byte, offset int64) error
	Write(p []byte, offset int64, fua bool) error
	Flush() error
	Discard(offset, length int64) error
	WriteZeroes(offset, length int64, keep bool) error // keep: without unmapping
	Close() error
}

// Subject is a front end under test.
type Subject struct {
	// New makes a front end that offers nothing yet.
	New func(t *testing.T) front.Frontend
	// Open opens what Start returned.
	Open func(t *testing.T, path string) Client

	// FUAIsFlush: the front end cannot mark a write FUA; a flush follows it.
	FUAIsFlush bool
	// DiscardIsZeroes: a discard arrives as write-zeroes.
	DiscardIsZeroes bool
	// Errno is what users see of a Handler's error; nil: what errno.Of says.
	Errno func(number syscall.Errno) syscall.Errno
	// AbortErrno is what users see of what an Abort fails; 0: any error.
	AbortErrno syscall.Errno
}

// volumeBytes is the size of the volume under test.
const volumeBytes = 64 << 20

// bench is one offered volume.
type bench struct {
	*testing.T
	subject Subject
	memory  *Memory
	front   front.Frontend
	path    string
}

// Run holds a front end to what every one of them must do.
func Run(t *testing.T, s Subject) {
	for _, c := range []struct {
		name string
		run  func(*bench)
	}{
		{"reads back what was written", readsBack},
		{"keeps requests of all lengths", lengths},
		{"keeps the order of one user", order},
		{"flushes after what was answered", flushes},
		{"passes FUA on", fua},
		{"discards", discards},
		{"zeroes", zeroes},
		{"reports errors by their number", errorNumbers},
		{"leaves memory to a disk that hangs", leavesMemory},
		{"refuses what reaches past the end", pastTheEnd},
		{"does not wait for earlier requests", independence},
		{"stops only when nobody holds it", stops},
		{"grows while it is in use", grows},
		{"aborts with I/O in flight", aborts},
		{"starts again", startsAgain},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{T: t, subject: s, memory: NewMemory(Geometry(volumeBytes), 3), front: s.New(t)}
			t.Cleanup(b.memory.Close)
			b.start()
			t.Cleanup(func() {
				if err := b.front.Abort(context.Background()); err != nil {
					t.Error(err)
				}
				if err := b.front.Stop(context.Background()); err != nil {
					t.Errorf("stop after an abort: %v", err)
				}
				b.memory.AwaitIdle()
			})
			c.run(b)
		})
	}
}

func (b *bench) start() {
	b.Helper()
	path, err := b.front.Start(context.Background(), b.memory, b.memory.Geometry())
	if err != nil {
		b.Fatal(err)
	}
	b.path = path
}

func (b *bench) open() Client {
	b.Helper()
	return b.subject.Open(b.T, b.path)
}

// must fails the test on an error.
func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func pattern(n int, seed byte) []byte {
	p := block.Aligned(n)
	for i := range p {
		p[i] = seed + byte(i>>9)*7 + byte(i)
	}
	return p
}

// changes is what arrived, without reads, which others may send too.
func (b *bench) changes() []Seen {
	var found []Seen
	for _, s := range b.memory.Seen() {
		if s.Op != block.Read {
			found = append(found, s)
		}
	}
	return found
}

func (b *bench) expect(want ...Seen) {
	b.Helper()
	got := b.changes()
	if len(got) != len(want) {
		b.Fatalf("arrived: %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			b.Fatalf("arrived: %v, want %v", got, want)
		}
	}
}

func readsBack(b *bench) {
	c := b.open()
	data := pattern(64<<10, 1)
	b.must(c.Write(data, 4096, false))
	if !bytes.Equal(b.memory.Bytes()[4096:4096+len(data)], data) {
		b.Error("the volume has something else")
	}
	got := block.Aligned(len(data))
	b.must(c.Read(got, 4096))
	if !bytes.Equal(got, data) {
		b.Error("reads back something else")
	}
	b.must(c.Close())
}

// leavesMemory: what a disk has, it may write into at any time.
func leavesMemory(b *bench) {
	c := b.open()
	data, got := pattern(16<<10, 3), block.Aligned(16<<10)
	b.memory.Keep(true)
	b.must(c.Write(data, 0, false))
	b.must(c.Read(got, 0))
	if !bytes.Equal(got, data) {
		b.Error("a read whose data are elsewhere shows something else")
	}
	b.memory.Keep(false)
	for i := range int64(64) {
		b.memory.Scribble()
		b.must(c.Write(data, i<<14, false))
		b.must(c.Read(got, i<<14))
		if !bytes.Equal(got, data) {
			b.Fatal("reads back something else")
		}
	}
	if b.memory.Scribble() {
		b.Error("memory that a disk has was used again")
	}
	b.must(c.Close())
}

func lengths(b *bench) {
	c := b.open()
	want := make([]byte, volumeBytes)
	offset := int64(512)
	for i, n := range []int{512, 4096, 4096 + 512, 64 << 10, 1<<20 - 512, 1 << 20, 1<<20 + 512, 5 << 20, 32 << 20} {
		data := pattern(n, byte(i))
		b.must(c.Write(data, offset, false))
		copy(want[offset:], data)
		got := block.Aligned(n)
		b.must(c.Read(got, offset))
		if !bytes.Equal(got, data) {
			b.Errorf("%d bytes read back differ", n)
		}
		offset += int64(n)
	}
	for _, s := range b.memory.Seen() {
		if s.Length > block.MaxTransferBytes {
			b.Errorf("a request of %d bytes arrived", s.Length)
		}
	}
	b.must(c.Close())
	if !bytes.Equal(b.memory.Bytes(), want) {
		b.Error("the volume has something else, somewhere")
	}
}

// order: a user that waits for each answer finds its writes in that order.
func order(b *bench) {
	c := b.open()
	b.memory.Forget()
	var want []Seen
	for i := range int64(64) {
		at := (i * 37 % 64) * 4096
		b.must(c.Write(pattern(4096, byte(i)), at, false))
		want = append(want, Seen{Op: block.Write, Offset: at, Length: 4096})
	}
	b.expect(want...)
	b.must(c.Close())
}

func flushes(b *bench) {
	c := b.open()
	b.memory.Forget()
	b.must(c.Write(pattern(4096, 1), 8192, false))
	b.must(c.Flush())
	b.expect(Seen{Op: block.Write, Offset: 8192, Length: 4096}, Seen{Op: block.Flush})
	b.must(c.Close())
}

func fua(b *bench) {
	c := b.open()
	b.memory.Forget()
	b.must(c.Write(pattern(4096, 1), 8192, true))
	if b.subject.FUAIsFlush {
		// The kernel may flush once for the flag and once for the call.
		got := b.changes()
		for len(got) > 2 && got[len(got)-1].Op == block.Flush {
			got = got[:len(got)-1]
		}
		if len(got) != 2 || got[0] != (Seen{Op: block.Write, Offset: 8192, Length: 4096}) || got[1].Op != block.Flush {
			b.Errorf("arrived: %v, want the write and a flush", b.changes())
		}
	} else {
		b.expect(Seen{Op: block.Write, Flags: block.FUA, Offset: 8192, Length: 4096})
	}
	b.must(c.Close())
}

func discards(b *bench) {
	c := b.open()
	b.must(c.Write(pattern(1<<20, 1), 1<<20, false))
	b.memory.Forget()
	b.must(c.Discard(1<<20, 512<<10))
	op := block.Discard
	if b.subject.DiscardIsZeroes {
		op = block.WriteZeroes
	}
	b.expect(Seen{Op: op, Offset: 1 << 20, Length: 512 << 10})
	got := block.Aligned(512 << 10)
	b.must(c.Read(got, 1<<20+512<<10))
	if !bytes.Equal(got, pattern(1<<20, 1)[512<<10:]) {
		b.Error("what was not discarded has changed")
	}
	b.must(c.Close())
}

func zeroes(b *bench) {
	c := b.open()
	b.must(c.Write(pattern(4<<20, 1), 0, false))
	b.memory.Forget()
	b.must(c.WriteZeroes(4096, 1<<20, true))
	b.must(c.WriteZeroes(2<<20, 1<<20, false))
	b.expect(Seen{Op: block.WriteZeroes, Flags: block.NoUnmap, Offset: 4096, Length: 1 << 20},
		Seen{Op: block.WriteZeroes, Offset: 2 << 20, Length: 1 << 20})
	got := block.Aligned(4 << 20)
	b.must(c.Read(got, 0))
	want := pattern(4<<20, 1)
	clear(want[4096 : 4096+1<<20])
	clear(want[2<<20 : 3<<20])
	if !bytes.Equal(got, want) {
		b.Error("zeroes are not where they should be")
	}
	b.must(c.Close())
}

func errorNumbers(b *bench) {
	c := b.open()
	for _, e := range []struct {
		err  error
		want syscall.Errno
	}{
		{block.ErrIO, syscall.EIO}, {block.ErrNoSpace, syscall.ENOSPC}, {block.ErrNotPrimary, syscall.EPERM},
		{block.ErrClosed, syscall.ESHUTDOWN}, {block.ErrSuspended, syscall.EIO}, {errors.New("anything"), syscall.EIO},
	} {
		want := e.want
		if b.subject.Errno != nil {
			want = b.subject.Errno(want)
		}
		b.memory.Fail(block.Write, e.err)
		if err := c.Write(pattern(4096, 1), 0, false); !errors.Is(err, want) {
			b.Errorf("%v: write fails with %v, want %v", e.err, err, want)
		}
		b.memory.Fail(block.Write, nil)
		b.memory.Fail(block.Read, e.err)
		if err := c.Read(block.Aligned(3<<20), 0); !errors.Is(err, want) {
			b.Errorf("%v: read fails with %v, want %v", e.err, err, want)
		}
		b.memory.Fail(block.Read, nil)
	}
	b.memory.Fail(block.Flush, block.ErrIO)
	if err := c.Flush(); !errors.Is(err, syscall.EIO) {
		b.Errorf("flush fails with %v, want EIO", err)
	}
	b.memory.Fail(block.Flush, nil)
	b.must(c.Write(pattern(4096, 1), 0, false)) // and goes on after them
	b.must(c.Close())
}

func pastTheEnd(b *bench) {
	c := b.open()
	b.memory.Forget()
	if err := c.Write(pattern(4096, 1), volumeBytes, false); err == nil {
		b.Error("wrote past the end")
	}
	for _, s := range b.changes() {
		b.Errorf("%v arrived", s)
	}
	b.must(c.Write(pattern(4096, 1), volumeBytes-4096, false))
	b.must(c.Close())
}

// grows: who opens the device after a resize sees all of it, and who had it open
// goes on.
func grows(b *bench) {
	b.must(b.front.Stop(b.Context()))
	g := b.memory.Geometry()
	g.SizeBytes = volumeBytes / 2
	path, err := b.front.Start(b.Context(), b.memory, g)
	b.must(err)
	b.path = path
	c := b.open()
	const last = volumeBytes - 4096
	if err := c.Write(pattern(4096, 1), last, false); err == nil {
		b.Error("wrote past the end")
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			err := c.Write(pattern(4096, 2), 4096, false)
			select {
			case <-stop:
				ended <- err
				return
			default:
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	b.must(b.front.Resize(b.Context(), b.memory.Geometry()))
	close(stop)
	b.must(<-ended)
	other := b.open()
	b.must(other.Write(pattern(4096, 3), last, false))
	back := block.Aligned(4096)
	b.must(other.Read(back, last))
	if !bytes.Equal(back, pattern(4096, 3)) {
		b.Error("what was written into the new part is not read back")
	}
	b.must(other.Close())
	b.must(c.Close())
}

// independence: a write that hangs does not keep others from completing.
func independence(b *bench) {
	c := b.open()
	b.memory.Hold(block.Write)
	hung := make(chan error, 1)
	go func() { hung <- c.Write(pattern(4096, 1), 0, false) }()
	b.memory.AwaitHeld(1)
	other := b.open()
	b.must(other.Read(block.Aligned(4096), 1<<20))
	b.must(other.Close())
	select {
	case err := <-hung:
		b.Fatalf("a held write was answered: %v", err)
	default:
	}
	b.memory.Release()
	b.must(<-hung)
	b.must(c.Close())
}

func stops(b *bench) {
	c := b.open()
	var busy *front.BusyError
	b.memory.Hold(block.Write)
	hung := make(chan error, 1)
	go func() { hung <- c.Write(pattern(4096, 1), 0, false) }()
	b.memory.AwaitHeld(1)
	if err := b.front.Stop(context.Background()); !errors.As(err, &busy) || len(busy.Holders) == 0 {
		b.Fatalf("Stop with I/O in flight: %v", err)
	}
	b.memory.Release()
	b.must(<-hung) // the device stayed up
	held, err := b.front.Holders()
	if err != nil || len(held) == 0 || held[0].Command == "" {
		b.Errorf("holders: %v, %v", held, err)
	}
	b.must(c.Close())
	b.awaitStop()
	b.memory.Forget()
	b.must(b.front.Stop(context.Background())) // a stopped one stops
	if len(b.memory.Seen()) != 0 {
		b.Errorf("requests after Stop: %v", b.memory.Seen())
	}
}

// awaitStop stops as soon as the kernel has noticed that the user left.
func (b *bench) awaitStop() {
	b.Helper()
	limit := time.After(10 * time.Second)
	for {
		err := b.front.Stop(context.Background())
		var busy *front.BusyError
		if !errors.As(err, &busy) {
			b.must(err)
			return
		}
		select {
		case <-limit:
			b.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func aborts(b *bench) {
	c := b.open()
	b.memory.Hold(block.Write)
	const depth = 8
	hung := make(chan error, depth)
	for i := range int64(depth) {
		go func() { hung <- c.Write(pattern(4096, 1), i*4096, false) }()
	}
	b.memory.AwaitHeld(depth)
	begin := time.Now()
	b.must(b.front.Abort(context.Background()))
	if took := time.Since(begin); took > 5*time.Second {
		b.Errorf("Abort took %v", took)
	}
	for range depth {
		err := <-hung
		if err == nil || b.subject.AbortErrno != 0 && !errors.Is(err, b.subject.AbortErrno) {
			b.Errorf("in flight at Abort: %v", err)
		}
	}
	b.memory.Forget()
	if err := c.Write(pattern(4096, 1), 0, false); err == nil {
		b.Error("a write after Abort succeeds")
	}
	if seen := b.memory.Seen(); len(seen) != 0 {
		b.Errorf("requests after Abort: %v", seen)
	}
	b.memory.Release()
	if err := c.Close(); err != nil {
		b.Log("close after an abort:", err)
	}
}

func startsAgain(b *bench) {
	for i := range 3 {
		if i == 1 {
			b.must(b.front.Abort(context.Background()))
		} else {
			b.awaitStop()
		}
		b.start()
		c := b.open()
		b.must(c.Write(pattern(4096, byte(i)), 0, false))
		b.must(c.Close())
	}
}
