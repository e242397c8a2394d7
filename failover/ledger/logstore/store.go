package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// Options of Open.
type Options struct {
	// Sync makes a file's bytes durable; nil is fdatasync. Tests slow it down,
	// fail it, or skip it.
	Sync func(*os.File) error
	// CompactBytes is the size of the file from which on it is rewritten when
	// most of it is dead; 0 is 1 MiB.
	CompactBytes int64
}

// Store is a raft.LogStore and raft.StableStore in one directory, which it
// locks. It is safe for concurrent use. After a failed write or sync every
// further change is refused: what the disk holds is then unknown. But after ErrNoRoom
// it holds what it held, and the next change may find some.
type Store struct {
	dir     string
	opt     Options
	lock    *os.File
	cutTail int64
	began   atomic.Pointer[time.Time]

	writer chan struct{} // holds one token: who has it may write, and owns what follows
	f      *os.File
	size   int64
	room   int64 // of the file, that the filesystem has given it
	dense  int64 // size below which a rewrite is not tried again
	seq    uint64
	failed error

	mu sync.Mutex // guards im, never across I/O: a hung disk must not stop a reader
	im *image     // changed only with the writer's token and mu
}

func (s *Store) beginWrite() { s.writer <- struct{}{} }
func (s *Store) endWrite()   { <-s.writer }

// alter changes what readers see.
func (s *Store) alter(f func(*image) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(s.im)
}

// ErrLocked says that another process (or another Store) has the directory.
var ErrLocked = errors.New("ledger directory is in use")

// ErrClosed is returned after Close.
var ErrClosed = errors.New("ledger store is closed")

// Open opens or creates the store in dir, cutting off an unfinished last
// operation. Corruption before the end is a *CorruptError.
func Open(dir string, opt Options) (*Store, error) {
	if opt.Sync == nil {
		opt.Sync = func(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
	}
	if opt.CompactBytes == 0 {
		opt.CompactBytes = 1 << 20
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("ledger directory: %w", err)
	}
	s := &Store{dir: dir, opt: opt, writer: make(chan struct{}, 1)}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		s.lock.Close() //nolint:errcheck // the error at hand says more than a failed close of a lock
		return nil, err
	}
	return s, nil
}

func (s *Store) path() string { return filepath.Join(s.dir, "log") }

func (s *Store) takeLock() error {
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("ledger lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close() //nolint:errcheck // nothing was written
		return fmt.Errorf("%w: %s: %w", ErrLocked, s.dir, err)
	}
	s.lock = f
	return nil
}

// load reads the file, or makes an empty one.
func (s *Store) load() error {
	if err := os.Remove(s.path() + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove unfinished rewrite: %w", err)
	}
	b, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		s.im = newImage()
		return s.rewrite(s.im)
	}
	if err != nil {
		return fmt.Errorf("read ledger log: %w", err)
	}
	im, good, seq, err := parse(s.path(), b)
	if err != nil {
		return err
	}
	s.im, s.seq, s.size = im, seq, good
	s.f, err = os.OpenFile(s.path(), os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open ledger log: %w", err)
	}
	if s.cutTail = int64(len(b)) - good; s.cutTail > 0 {
		if err := errors.Join(s.f.Truncate(good), s.f.Sync()); err != nil {
			s.f.Close() //nolint:errcheck // the truncation's error is the one to report
			return fmt.Errorf("cut unfinished tail of %s: %w", s.path(), err)
		}
	}
	s.reserve()
	s.ballast().lay() //nolint:errcheck // KeepRoom tells of it
	return nil
}

// parse replays the bytes of a log file. good is where the last whole frame ends.
func parse(path string, b []byte) (im *image, good int64, seq uint64, err error) {
	corrupt := func(at int64, what string) error { return &CorruptError{Path: path, Offset: at, What: what} }
	if len(b) < len(fileMagic) || string(b[:len(fileMagic)]) != fileMagic {
		return nil, 0, 0, corrupt(0, fmt.Sprintf("begins with %.16q, wanted %q", b, fileMagic))
	}
	im, good = newImage(), int64(len(fileMagic))
	for int(good) < len(b) {
		payload, n, ok := openFrame(b[good:])
		if !ok {
			if at := findFrame(b[good+1:], seq); at >= 0 {
				return nil, 0, 0, corrupt(good, fmt.Sprintf("bad frame, and a good later one at byte %d", good+1+int64(at)))
			}
			return im, good, seq, nil
		}
		if n != seq+1 {
			return nil, 0, 0, corrupt(good, fmt.Sprintf("frame %d after %d", n, seq))
		}
		if err := im.replay(payload); err != nil {
			return nil, 0, 0, corrupt(good, err.Error())
		}
		seq, good = n, good+frameHeader+int64(len(payload))
	}
	return im, good, seq, nil
}

// findFrame looks for a good frame numbered above seq anywhere in b.
func findFrame(b []byte, seq uint64) int {
	for i := 0; i+frameHeader <= len(b); i++ {
		if binary.LittleEndian.Uint32(b[i:]) != frameMagic {
			continue
		}
		if _, n, ok := openFrame(b[i:]); ok && n > seq {
			return i
		}
	}
	return -1
}

// CutTail returns how many bytes of an unfinished operation Open cut off.
func (s *Store) CutTail() int64 { return s.cutTail }

// Stalled returns for how long the operation now at the disk has been there,
// 0 when there is none. It never waits.
func (s *Store) Stalled() time.Duration {
	if at := s.began.Load(); at != nil {
		return time.Since(*at)
	}
	return 0
}

// write appends one sealed frame and makes it durable, with the writer's token.
func (s *Store) write(ops []byte) error {
	if s.failed != nil {
		return s.failed
	}
	if len(ops)-frameHeader > MaxFrame {
		return fmt.Errorf("ledger log: operation of %d bytes, at most %d", len(ops)-frameHeader, MaxFrame)
	}
	now := time.Now()
	s.began.Store(&now)
	defer s.began.Store(nil)
	sealFrame(ops, s.seq+1)
	_, err := s.f.WriteAt(ops, s.size)
	switch {
	case noRoom(err):
		return fmt.Errorf("write ledger log %s: %w: %w", s.path(), ErrNoRoom, err) // what of it is there is no frame, and is overwritten
	case err == nil:
		err = s.opt.Sync(s.f)
	}
	if err != nil {
		s.failed = fmt.Errorf("write ledger log %s: %w", s.path(), err)
		return s.failed
	}
	s.seq++
	s.size += int64(len(ops))
	if s.room-s.size < reserveBytes/2 {
		s.reserve()
	}
	return nil
}

// Close releases the directory. It does not wait for a stalled operation's
// disk longer than that operation takes.
func (s *Store) Close() error {
	s.beginWrite()
	defer s.endWrite()
	if errors.Is(s.failed, ErrClosed) {
		return nil
	}
	s.failed = ErrClosed
	return errors.Join(s.f.Close(), s.lock.Close())
}

func frameBuffer() []byte { return make([]byte, frameHeader, 512) }

// FirstIndex implements raft.LogStore.
func (s *Store) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.im.logs) == 0 {
		return 0, nil
	}
	return s.im.first, nil
}

// LastIndex implements raft.LogStore.
func (s *Store) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.im.last(), nil
}

// GetLog implements raft.LogStore.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.im.get(index)
	if e == nil {
		return raft.ErrLogNotFound
	}
	*l = *e
	return nil
}

// StoreLog implements raft.LogStore.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore: all of them or none, durable on return.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	s.beginWrite()
	defer s.endWrite()
	next := s.im.last() + 1
	if len(s.im.logs) == 0 {
		next = logs[0].Index
	}
	ops := frameBuffer()
	kept := make([]*raft.Log, len(logs))
	for i, l := range logs {
		if l.Index != next+uint64(i) || l.Index == 0 {
			return fmt.Errorf("ledger log: entry %d where %d is next", l.Index, next+uint64(i))
		}
		ops = appendEntry(ops, l)
		c := *l
		kept[i] = &c
	}
	if err := s.write(ops); err != nil {
		return err
	}
	return s.alter(func(im *image) error {
		for _, l := range kept {
			if err := im.add(l); err != nil {
				return err // cannot happen: the indexes were checked above
			}
		}
		return nil
	})
}

// DeleteRange implements raft.LogStore for a head, a tail, or all of the log.
func (s *Store) DeleteRange(lo, hi uint64) error {
	s.beginWrite()
	defer s.endWrite()
	if len(s.im.logs) == 0 || lo > hi || hi < s.im.first || lo > s.im.last() {
		return s.failed
	}
	if lo > s.im.first && hi < s.im.last() {
		return fmt.Errorf("ledger log: removing %d..%d would leave a gap in %d..%d", lo, hi, s.im.first, s.im.last())
	}
	if err := s.write(appendDelete(frameBuffer(), lo, hi)); err != nil {
		return err
	}
	if err := s.alter(func(im *image) error { return im.remove(lo, hi) }); err != nil {
		return err
	}
	return s.maybeCompact()
}

// IsMonotonic tells raft that the log has no gaps: after a snapshot from the
// leader it clears it.
func (s *Store) IsMonotonic() bool { return true }

// Set implements raft.StableStore.
func (s *Store) Set(key, val []byte) error {
	if len(key) == 0 || len(key) > maxKey {
		return fmt.Errorf("ledger store: key of %d bytes, wanted 1 to %d", len(key), maxKey)
	}
	s.beginWrite()
	defer s.endWrite()
	if old, ok := s.im.values[string(key)]; ok && string(old) == string(val) {
		return s.failed
	}
	if err := s.write(appendSet(frameBuffer(), string(key), val)); err != nil {
		return err
	}
	err := s.alter(func(im *image) error { im.set(string(key), append([]byte(nil), val...)); return nil })
	return errors.Join(err, s.maybeCompact())
}

// Get implements raft.StableStore: an absent key is empty.
func (s *Store) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]byte(nil), s.im.values[string(key)]...), nil
}

// SetUint64 implements raft.StableStore.
func (s *Store) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.LittleEndian.AppendUint64(nil, val))
}

// GetUint64 implements raft.StableStore: an absent key is 0.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil || len(b) == 0 {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("ledger store: %s holds %d bytes, wanted 8", key, len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}
