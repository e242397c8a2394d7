package logstore

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"hapair/kernel/durable"
)

// compactFrame is the payload size at which a rewrite begins a new frame.
const compactFrame = 256 << 10

// maybeCompact rewrites the file when it is large and mostly dead. The
// caller has the writer's token.
func (s *Store) maybeCompact() error {
	if s.size < s.opt.CompactBytes || s.size < 2*s.im.bytes {
		return nil
	}
	return s.rewrite(s.im)
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
// safe, every later change. The caller has the writer's token.
func (s *Store) rewrite(im *image) error {
	now := time.Now()
	s.began.Store(&now)
	defer s.began.Store(nil)
	f, size, seq, err := s.writeNew(im)
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
	old := s.f
	s.f, s.size, s.seq = f, size, seq
	if old != nil {
		old.Close() //nolint:errcheck // read and written through no more: nothing is pending in it
	}
	return nil
}

func (s *Store) writeNew(im *image) (f *os.File, size int64, seq uint64, err error) {
	f, err = os.OpenFile(s.path()+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, 0, err
	}
	out := []byte(fileMagic)
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
	_, err = f.WriteAt(out, 0)
	return f, int64(len(out)), seq, errors.Join(err, s.opt.Sync(f))
}
