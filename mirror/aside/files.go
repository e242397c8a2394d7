package aside

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"hapair/kernel/durable"
)

// ErrNone: there is no image.
var ErrNone = errors.New("no image is kept")

// ErrBusy: somebody has an image open, most likely an earlier user of the disk whose
// file system does not answer.
var ErrBusy = errors.New("the image is in use")

// file is a file of an image: an *os.File.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Name() string
	Fd() uintptr
	Truncate(size int64) error
}

func datasync(f file) error { return unix.Fdatasync(int(f.Fd())) } //nolint:wrapcheck // the callers say what

// paths are the files of a volume's image.
func paths(dir string, volume uint16) (img, idx string) {
	name := strconv.Itoa(int(volume))
	return filepath.Join(dir, name+".img"), filepath.Join(dir, name+".idx")
}

// Create makes an image of nothing yet, durably; one that is there, readable or not,
// is an error that wraps os.ErrExist, and a volume that is larger than Open accepts one
// that wraps ErrNoRoom. A power cut leaves all of it or none.
func Create(dir string, h Header) (*Image, error) {
	if h.SizeBytes > maxBytes {
		return nil, fmt.Errorf("create an image of volume %d: it has %d bytes, an image may be of %d: %w", h.Volume, h.SizeBytes, int64(maxBytes), ErrNoRoom)
	}
	if Exists(dir, h.Volume) {
		return nil, fmt.Errorf("create an image of volume %d in %s: %w", h.Volume, dir, os.ErrExist)
	}
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
	made := idx + ".new"
	var id [8]byte
	rand.Read(id[:]) // never fails
	m.id = binary.LittleEndian.Uint64(id[:])
	const how = os.O_RDWR | os.O_CREATE | os.O_TRUNC
	if m.index, err = openLocked(made, how); err == nil {
		m.data, err = openFile(img, how)
	}
	b := make([]byte, BlockBytes)
	if err == nil {
		err = sealJSON(b, kindHeader, m.id, &m.Header)
	}
	if err == nil {
		_, err = m.index.WriteAt(b, 0)
	}
	if err == nil {
		err = m.data.Truncate(m.blocks * BlockBytes)
	}
	if err == nil {
		err = errors.Join(m.flush(m.data), m.SetState(State{Phase: Keeping}))
	}
	if err == nil {
		err = os.Rename(made, idx)
	}
	if err = errors.Join(err, syncDirs(dir)); err != nil {
		return errors.Join(err, ignoreNone(os.Remove(made)), Remove(dir, m.Header.Volume))
	}
	return nil
}

// syncDirs flushes a directory and those above it that Create may have made.
func syncDirs(dir string) error {
	return errors.Join(durable.SyncDir(dir), durable.SyncDir(filepath.Dir(dir)), durable.SyncDir(filepath.Dir(filepath.Dir(dir))))
}

func openFile(path string, how int) (file, error) {
	f, err := os.OpenFile(path, how, 0o600)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the path
	}
	return f, nil
}

// openLocked opens an index that nobody else has open: who gave it up may write to it
// yet.
func openLocked(path string, how int) (file, error) {
	f, err := openFile(path, how)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

func ignoreNone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Open reads an image; ErrNone when there is none, ErrBusy when somebody has it open.
// One whose state or whose index is damaged is Incomplete: what a power cut leaves is
// not. An error that wraps ErrDamaged says that no later Open will do better; any
// other, that the image may be whole and nothing may be overwritten that is not in it.
func Open(dir string, volume uint16) (*Image, error) {
	img, idx := paths(dir, volume)
	index, err := openLocked(idx, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("open an image: %w", err)
	}
	var m *Image
	data, err := openFile(img, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err == nil {
		err = syncDirs(dir)
	}
	if err == nil {
		m, err = read(index, data, datasync)
	}
	if err == nil && m.Header.Volume != volume {
		err = fmt.Errorf("%w: it is of volume %d", ErrDamaged, m.Header.Volume)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open image %s: %w", idx, err), (&Image{index: index, data: data}).close())
	}
	return m, nil
}

// read is the image that two files hold. An agent that was killed may have left what
// is not durable: what is found to be saved has to be there after a power cut, too.
func read(index, data file, flush func(file) error) (*Image, error) {
	if err := errors.Join(flush(data), flush(index)); err != nil {
		return nil, fmt.Errorf("flush: %w", err)
	}
	m, err := load(index)
	if err != nil {
		return nil, err
	}
	m.data, m.flush = data, flush
	return m, nil
}

// discredited is what the name of an index ends with that cannot be read.
const discredited = ".unreadable"

// Exists reports whether there are files of a volume's image, whatever they hold.
func Exists(dir string, volume uint16) bool {
	_, idx := paths(dir, volume)
	for _, path := range []string{idx, idx + discredited} {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	return false
}

// Discredit has nobody open an image again, durably, and leaves its files until
// Remove: it cannot be read, and what is overwritten now is not in it.
func Discredit(dir string, volume uint16) error {
	_, idx := paths(dir, volume)
	if err := os.Rename(idx, idx+discredited); err != nil {
		return fmt.Errorf("give up an image: %w", err)
	}
	return durable.SyncDir(dir)
}

// Remove frees the space of a volume's image; one that is not there is no error. The
// index goes first, durably: an image without it is none.
func Remove(dir string, volume uint16) error {
	img, idx := paths(dir, volume)
	for _, path := range []string{idx, idx + discredited, img} {
		if err := ignoreNone(os.Remove(path)); err != nil {
			return fmt.Errorf("drop an image: %w", err)
		}
		if err := ignoreNone(durable.SyncDir(dir)); err != nil {
			return err
		}
	}
	return nil
}
