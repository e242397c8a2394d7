package logstore

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"hapair/kernel/durable"
)

// compactFrame is the payload size at which a rewrite begins a new frame.
const compactFrame = 256 << 10

// maybeCompact rewrites the file when it is large and mostly dead. The
// caller has the writer's token.
func (s *Store) maybeCompact() error {
	if s.size < s.opt.CompactBytes || s.size < 2*s.im.bytes || s.size < s.dense {
		return nil
	}
	err := s.rewrite(s.im)
	if errors.Is(err, ErrNoRoom) { // later: what there is is good, and has a reserve
		s.dense = s.size + reserveBytes/8
		return nil
	}
	return err
}

// Reset throws the log and all stable values away but those given: in one
// step, durable on return.
func (s *Store) Reset(values map[string][]byte) error {
	s.beginWrite()
	defer s.endWrite()
	if s.failed != nil {
		return s.failed
	}
	im := newImage()
	for k, v := range values {
		im.set(k, append([]byte(nil), v...))
	}
	if err := s.rewrite(im); err != nil {
		return err
	}
	return s.alter(func(old *image) error { *old = *im; return nil })
}

// rewrite replaces the file by one that holds only what is live. Until the
// rename the old file stands; a failure before it costs nothing but, to be
// safe, every later change, or for want of room not even that: ErrNoRoom. The caller has
// the writer's token.
func (s *Store) rewrite(im *image) error {
	now := time.Now()
	s.began.Store(&now)
	defer s.began.Store(nil)
	out, seq := encodeImage(im)
	f, err := s.ballast().write(s.path()+".new", func(f *os.File) error {
		_, err := f.WriteAt(out, 0)
		return errors.Join(err, s.opt.Sync(f))
	})
	defer s.ballast().lay() //nolint:errcheck // KeepRoom tells of it
	if noRoom(err) {
		return fmt.Errorf("rewrite ledger log %s: %w: %w", s.path(), ErrNoRoom, err)
	}
	if err == nil {
		err = os.Rename(f.Name(), s.path())
	}
	if err == nil {
		err = durable.SyncDir(s.dir)
	}
	if err != nil {
		if f != nil {
			f.Close() //nolint:errcheck // the first error is the one to report
		}
		s.failed = fmt.Errorf("rewrite ledger log %s: %w", s.path(), err)
		return s.failed
	}
	if s.f != nil {
		s.f.Close() //nolint:errcheck // read and written through no more: nothing is pending in it
	}
	s.f, s.size, s.seq, s.room, s.dense = f, int64(len(out)), seq, 0, 0
	s.reserve()
	return nil
}

func (s *Store) ballast() ballast { return ballast{s.path() + ".ballast"} }

// KeepRoom has the filesystem give again what room was used while it was full; ErrNoRoom
// when it is still. It waits for the disk.
func (s *Store) KeepRoom() error {
	s.beginWrite()
	defer s.endWrite()
	if s.failed != nil {
		return s.failed
	}
	now := time.Now()
	s.began.Store(&now)
	defer s.began.Store(nil)
	if s.room-s.size < reserveBytes/2 {
		s.reserve()
	}
	return s.ballast().lay()
}

// reserveBytes are kept for the file beyond its end: some thousand changes, while
// somebody else has filled the filesystem. Raft ends the process that cannot write its
// term down.
const reserveBytes = 1 << 20

// reserve has the filesystem give the file room beyond its end. One that cannot, or
// has none, is none the worse for having been asked.
func (s *Store) reserve() {
	want := s.size + reserveBytes
	if err := unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, s.size, reserveBytes); err == nil || !noRoom(err) {
		s.room = want // asked, and not again soon
	}
}

// encodeImage is a whole file, and the number of its last frame.
func encodeImage(im *image) (out []byte, seq uint64) {
	out = []byte(fileMagic)
	frame := frameBuffer()
	flush := func() {
		if len(frame) > frameHeader {
			seq++
			sealFrame(frame, seq)
			out = append(out, frame...)
			frame = frameBuffer()
		}
	}
	for _, key := range slices.Sorted(maps.Keys(im.values)) {
		frame = appendSet(frame, key, im.values[key])
	}
	for _, l := range im.logs {
		if len(frame) > compactFrame {
			flush()
		}
		frame = appendEntry(frame, l)
	}
	flush()
	return out, seq
}
