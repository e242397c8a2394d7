package aside

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxBytes bounds the volume of an image: which blocks are saved takes a bit each.
const maxBytes = 1 << 46

// headBlocks are the header and the state.
const headBlocks = 2

// ErrNone: there is no image.
var ErrNone = errors.New("no image is kept")

// Image is the image of one volume. One goroutine at a time saves; the others may
// read.
type Image struct {
	Header Header
	id     uint64
	data   *os.File
	index  *os.File
	blocks int64
	saved  []atomic.Uint64 // a bit for each block
	count  atomic.Int64    // of bits
	next   uint64          // number of the next batch
	flush  func(*os.File) error

	mu    sync.Mutex
	state State
}

// paths are the files of a volume's image.
func paths(dir string, volume uint16) (img, idx string) {
	name := strconv.Itoa(int(volume))
	return filepath.Join(dir, name+".img"), filepath.Join(dir, name+".idx")
}

// Create makes an image of nothing yet, durably; one that is there is an error
// that wraps os.ErrExist.
func Create(dir string, h Header) (*Image, error) {
	m := blank(h)
	if err := m.create(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("create an image: %w", err), m.close())
	}
	return m, nil
}

// create makes the files; what it made is not there any more after an error.
func (m *Image) create(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	img, idx := paths(dir, m.Header.Volume)
	var id [8]byte
	rand.Read(id[:]) // never fails
	m.id, m.next = binary.LittleEndian.Uint64(id[:]), 1
	const how = os.O_RDWR | os.O_CREATE | os.O_EXCL
	if m.index, err = os.OpenFile(idx, how, 0o600); err != nil {
		return err
	}
	if m.data, err = os.OpenFile(img, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return errors.Join(err, os.Remove(idx))
	}
	b := make([]byte, BlockBytes)
	if err = sealJSON(b, kindHeader, m.id, &m.Header); err == nil {
		_, err = m.index.WriteAt(b, 0)
	}
	if err == nil {
		err = m.data.Truncate(m.blocks * BlockBytes)
	}
	if err == nil {
		err = m.SetState(State{Phase: Keeping})
	}
	if err = errors.Join(err, syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
		return errors.Join(err, os.Remove(img), os.Remove(idx))
	}
	return nil
}

func blank(h Header) *Image {
	blocks := (h.SizeBytes + BlockBytes - 1) / BlockBytes
	return &Image{Header: h, blocks: blocks, saved: make([]atomic.Uint64, (blocks+63)/64), flush: datasync}
}

func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) } //nolint:wrapcheck // the callers say what

// Open reads an image; ErrNone when there is none. One whose state or whose index is
// damaged is Incomplete: what a power cut leaves is not.
func Open(dir string, volume uint16) (*Image, error) {
	img, idx := paths(dir, volume)
	index, err := os.OpenFile(idx, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("open an image: %w", err)
	}
	m, err := load(index)
	if err == nil {
		m.data, err = os.OpenFile(img, os.O_RDWR, 0)
	}
	if err == nil && m.Header.Volume != volume {
		err = fmt.Errorf("%w: it is of volume %d", ErrDamaged, m.Header.Volume)
	}
	if err != nil {
		if m != nil && m.data != nil {
			err = errors.Join(err, m.data.Close())
		}
		return nil, errors.Join(fmt.Errorf("open image %s: %w", idx, err), index.Close())
	}
	return m, nil
}

func load(index *os.File) (*Image, error) {
	b := make([]byte, BlockBytes)
	if _, err := index.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrDamaged, err)
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
// nothing it was about was overwritten. One that is torn before others is damage.
func (m *Image) loadBatches(b []byte) (why string) {
	for m.next = 1; ; m.next++ {
		entries, err := m.batch(b, m.next)
		if err != nil {
			break
		}
		m.mark(entries)
	}
	for n := m.next + 1; ; n++ {
		_, err := m.batch(b, n)
		if errors.Is(err, io.EOF) {
			return ""
		}
		if err == nil {
			return fmt.Sprintf("batch %d of its index is damaged", m.next)
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
	m.mu.Lock()
	defer m.mu.Unlock()
	b := make([]byte, BlockBytes)
	if err := sealJSON(b, kindState, m.id, &s); err != nil {
		return err
	}
	m.state = s
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
	b := make([]byte, BlockBytes)
	sealBatch(b, m.id, m.next, entries)
	if _, err := m.index.WriteAt(b, int64(m.next-1+headBlocks)*BlockBytes); err != nil {
		return fmt.Errorf("write the index of the image: %w", err)
	}
	if err := m.flush(m.index); err != nil {
		return fmt.Errorf("flush the index of the image: %w", err)
	}
	m.next++
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
	for n := uint64(1); n < m.next; n++ {
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
func used(f *os.File) int64 {
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
	for _, f := range []*os.File{m.data, m.index} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Exists reports whether there are files of a volume's image, whatever they hold.
func Exists(dir string, volume uint16) bool {
	_, idx := paths(dir, volume)
	_, err := os.Lstat(idx)
	return err == nil
}

// Remove frees the space of a volume's image; one that is not there is no error. The
// index goes first, durably: an image without it is none.
func Remove(dir string, volume uint16) error {
	img, idx := paths(dir, volume)
	for _, path := range []string{idx, img} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("drop an image: %w", err)
		}
		if err := syncDir(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("flush a directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("flush %s: %w", dir, err)
	}
	return nil
}
