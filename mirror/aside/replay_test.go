package aside

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"hapair/mirror/block"
	"hapair/test/replay"
)

// Power cuts at every event of a run, of the disk and of the files of its image
// together: what is left is an image that shows the data that were given up, or one
// that says it cannot.

// filed is a file of an image on a disk that is recorded. What a power cut leaves of
// its length is not of interest: what was not written reads as zeroes, or as nothing.
type filed struct {
	name string
	disk block.Disk
	mu   sync.Mutex
	size int64
}

func (f *filed) Name() string         { return f.name }
func (f *filed) Fd() uintptr          { return ^uintptr(0) }
func (f *filed) Close() error         { return nil }
func (f *filed) Truncate(int64) error { return nil }
func (f *filed) do(r *block.Request) error {
	done := make(chan error, 1)
	r.Done = func(_ *block.Request, err error) { done <- err }
	f.disk.Submit(r)
	return <-done
}

func (f *filed) WriteAt(b []byte, off int64) (int, error) {
	f.mu.Lock()
	f.size = max(f.size, off+int64(len(b)))
	f.mu.Unlock()
	return len(b), f.do(&block.Request{Op: block.Write, Offset: off, Length: int64(len(b)), Data: b})
}

func (f *filed) ReadAt(b []byte, off int64) (int, error) {
	f.mu.Lock()
	size := f.size
	f.mu.Unlock()
	if off+int64(len(b)) > size {
		return 0, io.EOF
	}
	return len(b), f.do(&block.Request{Op: block.Read, Offset: off, Length: int64(len(b)), Data: b})
}

// roll is a disk in memory of any size.
func roll(size int64) *memory {
	return &memory{data: make([]byte, size), size: size}
}

// taped is a run that is recorded.
type taped struct {
	t     *testing.T
	log   *replay.Log
	files [2]*filed // index, data
	disk  block.Disk
	was   []byte
	fails int    // flushes of the data that fail
	dir   string // of what a power cut has left

	lossy bool // as of the event that the replay has come to: the image may say that it is incomplete
	since int  // cuts in which it did not
}

var errCutShort = errors.New("the agent ends")

func newTaped(t *testing.T) *taped {
	x := &taped{t: t, log: &replay.Log{}, dir: t.TempDir()}
	inner := newMemory()
	x.was = bytes.Clone(inner.data)
	x.disk, _ = x.log.Record(inner)
	for i, name := range []string{"3.idx", "3.img"} {
		d, _ := x.log.Record(roll(128 * BlockBytes))
		x.files[i] = &filed{name: filepath.Join(t.TempDir(), name), disk: d}
	}
	return x
}

func (x *taped) flush(f file) error {
	if x.fails > 0 && f == file(x.files[1]) {
		x.fails--
		return block.ErrIO
	}
	return f.(*filed).do(&block.Request{Op: block.Flush})
}

// make is what Create does; the directory is not on the tape.
func (x *taped) make() *Image {
	m := blank(header())
	m.id, m.index, m.data, m.flush = 77, x.files[0], x.files[1], x.flush
	b := make([]byte, BlockBytes)
	must(x.t, sealJSON(b, kindHeader, m.id, &m.Header))
	_, err := m.index.WriteAt(b, 0)
	must(x.t, err)
	must(x.t, m.SetState(State{Phase: Keeping}))
	return m
}

// life is one of the agent: it keeps, and requests come.
func (x *taped) life(m *Image, seed uint64, requests int) {
	d := New(x.disk)
	d.Keep(m, Limits{})
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			from := int64(w) * 32 * BlockBytes
			for i := range requests {
				off := from + 512*rng.Int64N(200)
				length := min(512*(1+rng.Int64N(24)), from+32*BlockBytes-off, size-off)
				switch i % 5 {
				case 2:
					must(x.t, do(x.t, d, block.Discard, off, nil, length))
				case 3:
					must(x.t, do(x.t, d, block.WriteZeroes, off, nil, length))
				case 4:
					must(x.t, do(x.t, d, block.Flush, 0, nil, 0))
				default:
					write(x.t, d, off, int(length))
				}
			}
		})
	}
	wg.Wait()
	must(x.t, d.Leave())
}

// again is the image as the next life of the agent finds it; the kernel lives on.
func (x *taped) again() *Image {
	m, err := read(x.files[0], x.files[1], x.flush)
	must(x.t, err)
	return m
}

// killed ends an agent when it has written so many of the two files of a batch, and
// flushed only what comes before.
func (x *taped) killed(m *Image, flushes int, at int64) {
	m.flush = func(f file) error {
		if flushes--; flushes < 0 {
			return errCutShort
		}
		return x.flush(f)
	}
	data := make([]byte, BlockBytes)
	must(x.t, do(x.t, x.disk, block.Read, at*BlockBytes, data, BlockBytes))
	if err := m.save([]piece{{at, data}}); !errors.Is(err, errCutShort) {
		x.t.Fatal(err)
	}
}

// judge opens what a power cut has left.
func (x *taped) judge(p *replay.Player, lost replay.Loss) {
	t := x.t
	t.Helper()
	disk := p.Cut(0, lost)
	dir := x.dir
	for i, f := range x.files {
		b := p.Cut(1+i, lost).Bytes()
		if i == 0 {
			b = bytes.TrimRight(b, "\x00")
			b = append(b, make([]byte, -len(b)&(BlockBytes-1))...)
		}
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(f.name)), b, 0o600))
	}
	at, of := p.Position()
	m, err := reopen(dir)
	if err != nil {
		t.Fatalf("power cut after %d of %d: %v", at, of, err)
	}
	switch s := m.State(); {
	case s.Phase == Incomplete && !x.lossy:
		t.Fatalf("power cut after %d of %d: the image says %+v, and nothing was amiss", at, of, s)
	case s.Phase == Incomplete:
		must(t, m.close())
		return
	}
	x.since++
	d := New(disk)
	d.Keep(m, Limits{})
	if !bytes.Equal(seen(t, d), x.was) {
		t.Fatalf("power cut after %d of %d: the image shows something else than was given up, and does not say so", at, of)
	}
	must(t, m.Check(t.Context()))
	must(t, d.Leave())
}

// reopen reads the files without waiting for any disk.
func reopen(dir string) (*Image, error) {
	img, idx := paths(dir, 3)
	index, err := openFile(idx, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	data, err := openFile(img, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	return read(index, data, func(file) error { return nil })
}

func TestPowerCutAnywhere(t *testing.T) {
	x := newTaped(t)
	m := x.make()
	began := false
	x.log.Note(func() { began = true })
	x.life(m, 1, 12)
	x.killed(x.again(), 0, 13) // neither is durable that the next life finds
	x.life(x.again(), 2, 6)
	x.killed(x.again(), 1, 29)
	x.life(x.again(), 3, 10)
	m = x.again() // put back, half way; then again
	must(t, m.SetState(State{Phase: Undoing}))
	d := New(x.disk)
	d.Keep(m, Limits{})
	must(t, d.PutBack(t.Context()))
	must(t, d.Leave())
	x.life(x.again(), 4, 6)
	m = x.again()
	x.fails = 1 // from here on the image is not whole
	x.log.Note(func() { x.lossy = true })
	x.life(m, 5, 40)
	if s := x.again().State(); s.Phase != Incomplete {
		t.Fatalf("the run is none: %+v", s)
	}

	rng := rand.New(rand.NewPCG(uint64(len(x.log.Events())), 7))
	p := replay.NewPlayer(x.log, map[int][]byte{0: x.was})
	cuts, often := 0, 1
	if os.Getenv("HAPAIR_LONG") == "" {
		often = 4
	}
	for p.Step() {
		if at, _ := p.Position(); !began || at%often != 0 {
			continue
		}
		losses := []replay.Loss{replay.LoseNothing, replay.LoseEverything, replay.LoseAny(rng), replay.LoseAny(rng)}
		if n := p.Pieces(0, 1, 2); n <= 4 {
			losses = nil
			for mask := range uint64(1) << n {
				losses = append(losses, replay.LoseThese(mask))
			}
		}
		for _, lost := range losses {
			x.judge(p, lost)
			cuts++
		}
	}
	_, of := p.Position()
	if cuts < 200 || x.since == cuts || x.since < cuts/2 {
		t.Fatalf("%d events, %d cuts, %d of them with an image that is whole", of, cuts, x.since)
	}
	t.Logf("%d events, power cut %d times, %d of them with an image that is whole", of, cuts, x.since)
}
