package stall

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"hapair/mirror/block"
	"hapair/test/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errTired = errors.New("no answer for 30s")

// memory is a disk that does everything at once.
type memory struct{ closed chan struct{} }

func (m *memory) Submit(r *block.Request) { r.Answer(nil) }
func (m *memory) Geometry() block.Geometry {
	return block.Geometry{SizeBytes: 1 << 20, LogicalBlockBytes: 512}
}
func (m *memory) Close() error { close(m.closed); return nil }

func rig() (*Disk, *fault.Disk, *memory) {
	m := &memory{closed: make(chan struct{})}
	f := fault.New(m)
	return New(f), f, m
}

func write(d *Disk, done func(*block.Request, error)) *block.Request {
	r := &block.Request{Op: block.Write, Length: 512, Data: make([]byte, 512), Done: done}
	d.Submit(r)
	return r
}

func TestPassesOn(t *testing.T) {
	d, f, m := rig()
	f.Add(fault.Rule{Skip: 1, Count: 1, Err: block.ErrIO})
	var errs []error
	for range 3 {
		write(d, func(_ *block.Request, err error) { errs = append(errs, err) })
	}
	if errs[0] != nil || !errors.Is(errs[1], block.ErrIO) || errs[2] != nil {
		t.Fatal(errs)
	}
	d.Tick()
	if d.Waiting() != 0 {
		t.Fatal("waits for nothing")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	<-m.closed
}

// What the disk has is answered for it, once, and keeps its memory; what comes
// later fails; the disk is released when it has let go of the last request.
func TestAbandon(t *testing.T) {
	d, f, m := rig()
	f.Add(fault.Rule{Hang: true})
	var errs []error
	done := func(_ *block.Request, err error) { errs = append(errs, err) }
	first, second := write(d, done), write(d, done)
	for range 3 {
		d.Tick()
	}
	if n := d.Waiting(); n != 3 {
		t.Fatalf("waits for %d ticks", n)
	}
	d.Abandon(errTired)
	d.Abandon(errors.New("again"))
	write(d, done)
	if len(errs) != 3 {
		t.Fatalf("%d answers", len(errs))
	}
	for _, err := range errs {
		if !errors.Is(err, errTired) || !errors.Is(err, block.ErrNoAnswer) {
			t.Fatal(err)
		}
	}
	if !first.Kept || !second.Kept || d.Waiting() != 0 || d.Abandoned() != 2 {
		t.Fatalf("kept %t %t, waiting %d, abandoned %d", first.Kept, second.Kept, d.Waiting(), d.Abandoned())
	}
	if err := d.Close(); !errors.Is(err, block.ErrNoAnswer) {
		t.Fatal(err)
	}
	select {
	case <-m.closed:
		t.Fatal("the disk was released with requests at it")
	default:
	}
	f.Release()
	<-m.closed
	if len(errs) != 3 {
		t.Fatal("an abandoned request was answered again")
	}
}

// Every request is answered exactly once, whoever comes first.
func TestAbandonAmongAnswers(t *testing.T) {
	for range 200 {
		d, f, m := rig()
		f.Add(fault.Rule{Skip: 8, Count: 8, Hang: true})
		var answers atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 8 {
					write(d, func(*block.Request, error) { answers.Add(1) })
				}
			})
		}
		wg.Go(f.Release)
		wg.Go(func() { d.Abandon(errTired) })
		wg.Wait()
		if n := answers.Load(); n != 32 {
			t.Fatalf("%d answers to 32 requests", n)
		}
		f.Release()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		<-m.closed
	}
}

func TestNoAllocations(t *testing.T) {
	d := New(&memory{closed: make(chan struct{})})
	r := &block.Request{Op: block.Write, Length: 512, Data: make([]byte, 512), Done: func(*block.Request, error) {}}
	if n := testing.AllocsPerRun(100, func() { d.Submit(r) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkSubmit(b *testing.B) {
	d := New(&memory{closed: make(chan struct{})})
	r := &block.Request{Op: block.Write, Length: 512, Data: make([]byte, 512), Done: func(*block.Request, error) {}}
	for b.Loop() {
		d.Submit(r)
	}
}

// A disk that is to fail answers what it has been given, then with errors, then as
// before; one of its requests that never comes back can still be given up.
func TestFail(t *testing.T) {
	d, f, m := rig()
	f.Add(fault.Rule{Count: 1, Hang: true})
	var errs []error
	done := func(_ *block.Request, err error) { errs = append(errs, err) }
	write(d, done)
	d.Fail(block.ErrIO)
	write(d, done)
	if len(errs) != 1 || !errors.Is(errs[0], block.ErrIO) {
		t.Fatal(errs)
	}
	d.Fail(nil)
	write(d, done)
	d.Fail(block.ErrIO)
	d.Abandon(errTired)
	write(d, done)
	if len(errs) != 4 || errs[1] != nil || !errors.Is(errs[2], errTired) || !errors.Is(errs[3], errTired) {
		t.Fatal(errs)
	}
	f.Release()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	<-m.closed
}
