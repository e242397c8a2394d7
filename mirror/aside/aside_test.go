package aside

import (
	"bytes"
	"cmp"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hapair/mirror/block"
)

const size = 64*BlockBytes - 512 // the last block is cut

// memory is a disk; before, when set, looks at every request first.
type memory struct {
	mu     sync.Mutex
	data   []byte
	before func(r *block.Request)
	err    error // of reads
	size   int64 // 0: size
}

func newMemory() *memory {
	d := &memory{data: make([]byte, size)}
	for i := range d.data {
		d.data[i] = byte(i/512*7 + i)
	}
	return d
}

func (d *memory) Geometry() block.Geometry {
	return block.Geometry{SizeBytes: cmp.Or(d.size, size), LogicalBlockBytes: 512, PhysicalBlockBytes: 512, MaxTransferBytes: block.MaxTransferBytes}
}
func (d *memory) Close() error { return nil }

func (d *memory) Submit(r *block.Request) {
	d.mu.Lock()
	before := d.before
	d.mu.Unlock()
	if before != nil {
		before(r)
	}
	d.mu.Lock()
	var err error
	switch r.Op {
	case block.Read:
		copy(r.Data, d.data[r.Offset:])
		err = d.err
	case block.Write:
		copy(d.data[r.Offset:], r.Data)
	case block.Discard, block.WriteZeroes:
		clear(d.data[r.Offset:r.End()])
	}
	d.mu.Unlock()
	go r.Answer(err)
}

func header() Header {
	return Header{Resource: "r", Volume: 3, Node: "beta", Peer: "alpha", SizeBytes: size, Generations: [10]uint64{80, 77}, Since: 1700000000, Elder: true}
}

// do carries one request out.
func do(t *testing.T, d block.Handler, op block.Op, off int64, data []byte, length int64) error {
	t.Helper()
	done := make(chan error, 1)
	d.Submit(&block.Request{Op: op, Offset: off, Length: length, Data: data, Done: func(_ *block.Request, err error) { done <- err }})
	return <-done
}

func write(t *testing.T, d block.Handler, off int64, n int) {
	t.Helper()
	data := block.Aligned(n)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	if err := do(t, d, block.Write, off, data, int64(n)); err != nil {
		t.Fatal(err)
	}
}

// seen is what the view shows, read in odd pieces.
func seen(t *testing.T, d *Disk) []byte {
	t.Helper()
	out := make([]byte, size)
	for off := 0; off < size; {
		n := min(size-off, 512*(1+rand.IntN(40)))
		if err := do(t, d.View(), block.Read, int64(off), out[off:off+n], int64(n)); err != nil {
			t.Fatal(err)
		}
		off += n
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keeping is a disk of which an image is kept.
func keeping(t *testing.T, l Limits) (d *Disk, inner *memory, dir string, was []byte) {
	t.Helper()
	inner, dir = newMemory(), filepath.Join(t.TempDir(), "split-brain", "r")
	was = bytes.Clone(inner.data)
	m, err := Create(dir, header())
	must(t, err)
	d = New(inner)
	d.Keep(m, l)
	t.Cleanup(func() { must(t, d.Close()) })
	return d, inner, dir, was
}

// Whatever is written, discarded or zeroed, the view shows what was there, and so
// does the image when it was opened again.
func TestTheViewIsWhatWasGivenUp(t *testing.T) {
	d, inner, dir, was := keeping(t, Limits{})
	var writers sync.WaitGroup
	for w := range 4 { // each on its own sixteenth of the disk: overlaps are the engine's to keep apart
		writers.Go(func() {
			from := int64(w * 16 * BlockBytes)
			for range 50 {
				off := from + 512*rand.Int64N(100)
				length := 512 * (1 + rand.Int64N(20))
				if off+length > min(from+16*BlockBytes, size) {
					continue
				}
				switch rand.IntN(3) {
				case 0:
					write(t, d, off, int(length))
				case 1:
					if err := do(t, d, block.Discard, off, nil, length); err != nil {
						t.Error(err)
					}
				default:
					if err := do(t, d, block.WriteZeroes, off, nil, length); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	if !bytes.Equal(seen(t, d), was) || bytes.Equal(inner.data, was) || d.Image().Blocks() == 0 {
		t.Fatalf("%d blocks are kept, and the view is not what was there", d.Image().Blocks())
	}
	must(t, d.Release())
	m, err := Open(dir, 3)
	must(t, err)
	if m.State().Phase != Keeping || m.Header.Generations != header().Generations || m.Header.SizeBytes != size {
		t.Fatalf("%+v %+v", m.State(), m.Header)
	}
	d.Keep(m, Limits{})
	write(t, d, 40*BlockBytes, 4*BlockBytes)
	if !bytes.Equal(seen(t, d), was) {
		t.Fatal("after it was opened again, the view is not what was there")
	}
	back := bytes.Clone(inner.data)
	must(t, m.Each(func(b int64, data []byte) error { copy(back[b*BlockBytes:], data); return nil }))
	if !bytes.Equal(back, was) {
		t.Fatal("put back, it is not what was there")
	}
	if err := do(t, d.View(), block.Write, 0, make([]byte, 512), 512); !errors.Is(err, block.ErrNotSupp) {
		t.Fatalf("the view was written to: %v", err)
	}
}

// One request that overwrites more than goes into one batch.
func TestALongDiscardIsSavedWhole(t *testing.T) {
	big := newMemory()
	const blocks = 3*batchMax + 7
	big.data = bytes.Repeat([]byte{5}, blocks*BlockBytes)
	h := header()
	h.SizeBytes = blocks * BlockBytes
	m, err := Create(filepath.Join(t.TempDir(), "r"), h)
	must(t, err)
	d := New(big)
	d.Keep(m, Limits{})
	must(t, do(t, d, block.Discard, 0, nil, blocks*BlockBytes))
	n := 0
	must(t, m.Each(func(_ int64, data []byte) error {
		n++
		if data[0] != 5 || data[BlockBytes-1] != 5 {
			return errors.New("not what was there")
		}
		return nil
	}))
	if n != blocks || big.data[0] != 0 {
		t.Fatalf("%d blocks of %d were saved", n, blocks)
	}
	must(t, d.Close())
}

// At the moment a block is overwritten, what is durable of the image has it: a
// power cut takes everything that was not flushed.
func TestABlockIsDurableBeforeItIsOverwritten(t *testing.T) {
	d, inner, dir, was := keeping(t, Limits{})
	var mu sync.Mutex
	durable := map[string][]byte{}
	snapshot := func(f file) error {
		at := strings.TrimSuffix(f.Name(), ".new") // as which it was made
		data, err := os.ReadFile(at)
		mu.Lock()
		durable[filepath.Base(at)] = data
		mu.Unlock()
		return err
	}
	m := d.Image()
	must(t, snapshot(m.index))
	must(t, snapshot(m.data))
	m.flush = snapshot
	cuts := 0
	inner.before = func(r *block.Request) {
		if !r.Op.Changes() {
			return
		}
		cuts++
		after := filepath.Join(t.TempDir(), "r")
		must(t, os.MkdirAll(after, 0o700))
		mu.Lock()
		for name, data := range durable {
			must(t, os.WriteFile(filepath.Join(after, name), data, 0o600))
		}
		mu.Unlock()
		left, err := Open(after, 3)
		must(t, err)
		for b := r.Offset / BlockBytes; b <= (r.End()-1)/BlockBytes; b++ {
			if !left.Saved(b) {
				t.Errorf("%s overwrites block %d, which a power cut would lose", r, b)
			}
		}
		must(t, left.Each(func(b int64, data []byte) error {
			if at := b * BlockBytes; !bytes.Equal(data[:min(BlockBytes, size-at)], was[at:min(at+BlockBytes, size)]) {
				t.Errorf("block %d is kept as it was not", b)
			}
			return nil
		}))
		must(t, left.close())
	}
	for range 40 {
		off := 512 * rand.Int64N(size/512-16)
		write(t, d, off, 512*(1+rand.IntN(16)))
	}
	if cuts != 40 || dir == "" {
		t.Fatalf("%d writes were seen", cuts)
	}
}

// A torn last batch is nothing; a damaged one before others is told.
func TestWhatAPowerCutLeavesOfTheIndex(t *testing.T) {
	d, _, dir, _ := keeping(t, Limits{})
	for b := range int64(4) {
		write(t, d, b*BlockBytes, BlockBytes)
	}
	must(t, d.Release())
	_, idx := paths(dir, 3)
	whole, err := os.ReadFile(idx)
	must(t, err)
	if len(whole) != (headBlocks+4)*BlockBytes {
		t.Fatalf("an index of %d bytes", len(whole))
	}
	for name, c := range map[string]struct {
		change func([]byte) []byte
		phase  Phase
		blocks int64
		why    string
	}{
		"torn in the last":     {func(b []byte) []byte { clear(b[len(b)-1000:]); b[len(b)-1] = 1; return b }, Keeping, 3, ""},
		"the last is missing":  {func(b []byte) []byte { return b[:len(b)-BlockBytes] }, Keeping, 3, ""},
		"cut in the last":      {func(b []byte) []byte { return b[:len(b)-100] }, Keeping, 3, ""},
		"damaged in the first": {func(b []byte) []byte { b[headBlocks*BlockBytes+50] ^= 1; return b }, Incomplete, 0, "batch 1 of its index is damaged"},
		"state":                {func(b []byte) []byte { b[BlockBytes+41] ^= 1; return b }, Incomplete, 4, "its state cannot be read"},
	} {
		must(t, os.WriteFile(idx, c.change(bytes.Clone(whole)), 0o600))
		m, err := Open(dir, 3)
		must(t, err)
		if s := m.State(); s.Phase != c.phase || m.Blocks() != c.blocks || !strings.Contains(s.Why, c.why) {
			t.Errorf("%s: %+v, %d blocks", name, s, m.Blocks())
		}
		must(t, m.close())
	}
	must(t, os.WriteFile(idx, bytes.Repeat([]byte{7}, 9000), 0o600))
	if _, err := Open(dir, 3); !errors.Is(err, ErrDamaged) {
		t.Errorf("no index: %v", err)
	}
	must(t, Remove(dir, 3))
	if _, err := Open(dir, 3); !errors.Is(err, ErrNone) {
		t.Errorf("dropped: %v", err)
	}
}

// What cannot be kept is said, durably, before it is overwritten; the disk goes on.
func TestAnImageThatCannotBeKept(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		breaks func(*Disk, *memory)
		err    error
	}{
		"limit":        {limits: Limits{Bytes: BlockBytes}, err: ErrNoRoom},
		"free space":   {limits: Limits{Free: 1 << 60}, err: ErrNoRoom},
		"disk":         {breaks: func(_ *Disk, m *memory) { m.err = block.ErrIO }, err: block.ErrIO},
		"image's disk": {breaks: func(d *Disk, _ *memory) { must(t, d.Image().data.Close()) }, err: os.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			lost := make(chan error, 1)
			c.limits.Lost = func(err error) { lost <- err }
			inner, dir := newMemory(), filepath.Join(t.TempDir(), "r")
			m, err := Create(dir, header())
			must(t, err)
			d := New(inner)
			d.Keep(m, c.limits)
			if c.breaks != nil {
				c.breaks(d, inner)
			}
			inner.before = func(r *block.Request) {
				if r.Op.Changes() && phaseOf(t, dir) != Incomplete {
					t.Error("overwritten before it is written down that the image is incomplete")
				}
			}
			write(t, d, 0, BlockBytes)
			if err := <-lost; !errors.Is(err, c.err) {
				t.Errorf("lost because of %v", err)
			}
			write(t, d, BlockBytes, BlockBytes) // goes on, and is not told twice
			if err := do(t, d.View(), block.Read, 0, make([]byte, 512), 512); !errors.Is(err, block.ErrIO) {
				t.Errorf("an incomplete image was read: %v", err)
			}
			if err := d.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
		})
	}
}

// phaseOf is what the files of an image say that is in use.
func phaseOf(t *testing.T, dir string) Phase {
	t.Helper()
	after := filepath.Join(t.TempDir(), "r")
	must(t, os.CopyFS(after, os.DirFS(dir)))
	left, err := Open(after, 3)
	must(t, err)
	must(t, left.close())
	return left.State().Phase
}

func TestNothingIsCreatedTwice(t *testing.T) {
	_, _, dir, _ := keeping(t, Limits{})
	if _, err := Create(dir, header()); !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
}

// Without an image a request costs nothing.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	d := New(still{})
	r := &block.Request{Op: block.Write, Length: 4096, Data: make([]byte, 4096), Done: func(*block.Request, error) {}}
	if n := testing.AllocsPerRun(100, func() { d.Submit(r) }); n != 0 {
		t.Fatalf("%v allocations a request", n)
	}
}

type still struct{ block.Disk }

func (still) Submit(r *block.Request) { r.Answer(nil) }

// FuzzIndex: whatever the files hold, they are read or refused.
func FuzzIndex(f *testing.F) {
	b := make([]byte, 4*BlockBytes)
	h := header()
	if err := errors.Join(sealJSON(b[:BlockBytes], kindHeader, 9, &h), sealJSON(b[BlockBytes:2*BlockBytes], kindState, 9, &State{Phase: Keeping})); err != nil {
		f.Fatal(err)
	}
	sealBatch(b[2*BlockBytes:3*BlockBytes], 9, 1, []entry{{5, 6}, {7, 8}})
	f.Add(b[:3*BlockBytes])
	f.Add(b)
	f.Add([]byte(magic))
	dir := f.TempDir()
	img, idx := paths(dir, 3)
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, index []byte) {
		must(t, os.WriteFile(idx, index, 0o600))
		m, err := Open(dir, 3)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		if m.Blocks() > m.blocks || m.State().Phase == "" {
			t.Fatalf("%d blocks of %d, %+v", m.Blocks(), m.blocks, m.State())
		}
		must(t, m.close())
	})
}

// TestGoldenBatch pins a block of the index.
func TestGoldenBatch(t *testing.T) {
	b := make([]byte, BlockBytes)
	sealBatch(b, 0x1122334455667788, 2, []entry{{5, 0xaabbccdd}})
	want := "hapairSB" + "\x00\x00\x00\x00" + "\x01\x00\x03\x00" + "\x88\x77\x66\x55\x44\x33\x22\x11" + "\x02\x00\x00\x00\x00\x00\x00\x00" +
		"\x01\x00\x00\x00\x00\x00\x00\x00" + "\x05\x00\x00\x00\x00\x00\x00\x00" + "\xdd\xcc\xbb\xaa"
	got := bytes.Clone(b)
	clear(got[8:12])
	if string(got[:len(want)]) != want || bytes.ContainsFunc(got[len(want):], func(r rune) bool { return r != 0 }) {
		t.Fatalf("%x", got[:64])
	}
	f, err := unseal(b)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := f.entries(6); err != nil || len(e) != 1 || e[0] != (entry{5, 0xaabbccdd}) {
		t.Fatalf("%v, %v", e, err)
	}
	if _, err := f.entries(5); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a block past the end: %v", err)
	}
}
