package aside

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxBytes bounds the volume of an image: which blocks are saved takes a bit each.
const maxBytes = 1 << 46

// headBlocks are the header and the state.
const headBlocks = 2

// Image is the image of one volume. One goroutine at a time saves; the others may
// read.
type Image struct {
	Header Header
	id     uint64
	data   file
	index  file
	blocks int64
	saved  []atomic.Uint64 // a bit for each block
	count  atomic.Int64    // of bits
	next   atomic.Uint64   // number of the next batch
	flush  func(file) error

	writing sync.Mutex // one SetState at a time
	mu      sync.Mutex // never held while the file system is asked: it may hang
	state   State
}

func blank(h Header) *Image {
	blocks := (h.SizeBytes + BlockBytes - 1) / BlockBytes
	m := &Image{Header: h, blocks: blocks, saved: make([]atomic.Uint64, (blocks+63)/64), flush: datasync}
	m.next.Store(1)
	return m
}

func load(index file) (*Image, error) {
	b := make([]byte, BlockBytes)
	if _, err := index.ReadAt(b, 0); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: header: %w", ErrDamaged, err)
	} else if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	f, err := unseal(b)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	var h Header
	if err := f.json(kindHeader, &h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if h.SizeBytes <= 0 || h.SizeBytes > maxBytes {
		return nil, fmt.Errorf("header: %w: of %d bytes", ErrDamaged, h.SizeBytes)
	}
	m := blank(h)
	m.id, m.index = f.id, index
	why := m.loadState(b)
	if more := m.loadBatches(b); why == "" {
		why = more
	}
	if why != "" && m.state.Phase != Incomplete {
		m.state = State{Phase: Incomplete, Why: why, At: time.Now().UTC()}
	}
	return m, nil
}

// loadState reads the state, and says what is wrong with it. A power cut may have
// torn it: then it is not known what it was to say.
func (m *Image) loadState(b []byte) string {
	_, err := m.index.ReadAt(b, BlockBytes)
	if err == nil {
		var f frame
		if f, err = unseal(b); err == nil && f.id != m.id {
			err = fmt.Errorf("%w: of another image", ErrDamaged)
		}
		if err == nil {
			err = f.json(kindState, &m.state)
		}
	}
	if err != nil {
		return fmt.Sprintf("its state cannot be read: %v", err)
	}
	switch m.state.Phase {
	case Keeping, Incomplete, Undoing, Undone:
		return ""
	}
	return fmt.Sprintf("its state is %q", m.state.Phase)
}

// loadBatches reads which blocks were saved. The last batch may be torn: then
// nothing it was about was overwritten. One that is torn before others is damage, and
// so is one that cannot be read.
func (m *Image) loadBatches(b []byte) (why string) {
	n := uint64(1)
	for ; ; n++ {
		entries, err := m.batch(b, n)
		if err != nil {
			break
		}
		m.mark(entries)
	}
	m.next.Store(n)
	for first := n; ; n++ {
		_, err := m.batch(b, n)
		switch {
		case errors.Is(err, io.EOF):
			return ""
		case err == nil:
			return fmt.Sprintf("batch %d of its index is damaged", first)
		case !errors.Is(err, ErrDamaged):
			return fmt.Sprintf("its index cannot be read: %v", err)
		}
	}
}

// batch reads one; past the end the error wraps io.EOF.
func (m *Image) batch(b []byte, number uint64) ([]entry, error) {
	if _, err := m.index.ReadAt(b, int64(number-1+headBlocks)*BlockBytes); err != nil {
		return nil, fmt.Errorf("batch %d: %w", number, err)
	}
	f, err := unseal(b)
	if err != nil {
		return nil, err
	}
	if f.id != m.id || f.number != number {
		return nil, fmt.Errorf("%w: batch %d of image %x", ErrDamaged, f.number, f.id)
	}
	return f.entries(m.blocks)
}

func (m *Image) mark(entries []entry) {
	for _, e := range entries {
		word, bit := &m.saved[e.block/64], uint64(1)<<(e.block%64)
		if old := word.Or(bit); old&bit == 0 {
			m.count.Add(1)
		}
	}
}

// Saved reports whether a block is in the image.
func (m *Image) Saved(block int64) bool { return m.saved[block/64].Load()&(1<<(block%64)) != 0 }

// covers reports whether all blocks of a range are.
func (m *Image) covers(off, length int64) bool {
	for b := off / BlockBytes; b <= m.last(off+length); b++ {
		if !m.Saved(b) {
			return false
		}
	}
	return true
}

// last is the last block of a range that ends at end, or of the image: what a volume
// has grown by since was not given up.
func (m *Image) last(end int64) int64 { return min((end-1)/BlockBytes, m.blocks-1) }

// Blocks is how many blocks are saved.
func (m *Image) Blocks() int64 { return m.count.Load() }

// State is the phase, and why.
func (m *Image) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// SetState makes a phase durable.
func (m *Image) SetState(s State) error {
	s.At = time.Now().UTC()
	s.Why = s.Why[:min(len(s.Why), 1000)]
	m.writing.Lock()
	defer m.writing.Unlock()
	b := make([]byte, BlockBytes)
	if err := sealJSON(b, kindState, m.id, &s); err != nil {
		return err
	}
	m.mu.Lock()
	m.state = s
	m.mu.Unlock()
	if _, err := m.index.WriteAt(b, BlockBytes); err != nil {
		return fmt.Errorf("state of an image: %w", err)
	}
	if err := m.flush(m.index); err != nil {
		return fmt.Errorf("state of an image: flush: %w", err)
	}
	return nil
}

// piece is a run of blocks to save.
type piece struct {
	block int64
	data  []byte
}

// save makes blocks durable, at most batchMax; then they are saved.
func (m *Image) save(pieces []piece) error {
	var entries []entry
	for _, p := range pieces {
		if _, err := m.data.WriteAt(p.data, p.block*BlockBytes); err != nil {
			return fmt.Errorf("write the image: %w", err)
		}
		for i := 0; i < len(p.data); i += BlockBytes {
			entries = append(entries, entry{p.block + int64(i/BlockBytes), crc32.Checksum(p.data[i:i+BlockBytes], castagnoli)})
		}
	}
	if err := m.flush(m.data); err != nil {
		return fmt.Errorf("flush the image: %w", err)
	}
	b, next := make([]byte, BlockBytes), m.next.Load()
	sealBatch(b, m.id, next, entries)
	if _, err := m.index.WriteAt(b, int64(next-1+headBlocks)*BlockBytes); err != nil {
		return fmt.Errorf("write the index of the image: %w", err)
	}
	if err := m.flush(m.index); err != nil {
		return fmt.Errorf("flush the index of the image: %w", err)
	}
	m.next.Store(next + 1)
	m.mark(entries)
	return nil
}

// ReadAt reads whole saved blocks.
func (m *Image) ReadAt(b []byte, block int64) error {
	if _, err := m.data.ReadAt(b, block*BlockBytes); err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	return nil
}

// Each calls fn with every block that was saved, as it was; a block that is not as
// it was is an error that wraps ErrDamaged.
func (m *Image) Each(fn func(block int64, data []byte) error) error {
	head, data := make([]byte, BlockBytes), make([]byte, BlockBytes)
	for n := uint64(1); n < m.next.Load(); n++ {
		entries, err := m.batch(head, n)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := m.ReadAt(data, e.block); err != nil {
				return err
			}
			if crc32.Checksum(data, castagnoli) != e.sum {
				return fmt.Errorf("%w: block %d is not what was saved", ErrDamaged, e.block)
			}
			if err := fn(e.block, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// used is how many bytes a file takes on its file system.
func used(f file) int64 {
	var st unix.Stat_t
	if f == nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// Used is how many bytes the image takes.
func (m *Image) Used() int64 { return used(m.data) + used(m.index) }

func (m *Image) close() error {
	var errs []error
	for _, f := range []file{m.data, m.index} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
