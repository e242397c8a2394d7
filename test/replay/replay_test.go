package replay

import (
	"bytes"
	"testing"

	"hapair/mirror/block"
)

// hand is a disk that ends its requests when it is told to.
type hand struct{ waiting []*block.Request }

func (h *hand) Submit(r *block.Request) { h.waiting = append(h.waiting, r) }
func (h *hand) Geometry() block.Geometry {
	return block.Geometry{SizeBytes: 1 << 20, LogicalBlockBytes: block.SectorBytes}
}
func (h *hand) Close() error { return nil }

func (h *hand) end(i int, err error) {
	r := h.waiting[i]
	h.waiting = append(h.waiting[:i], h.waiting[i+1:]...)
	r.Answer(err)
}

func write(d block.Disk, flags block.Flags, offset int64, length int, c byte) {
	d.Submit(&block.Request{Op: block.Write, Flags: flags, Offset: offset, Length: int64(length), Data: bytes.Repeat([]byte{c}, length), Done: func(*block.Request, error) {}})
}

func flush(d block.Disk) {
	d.Submit(&block.Request{Op: block.Flush, Done: func(*block.Request, error) {}})
}

// What a cut may leave: first, after everything that was logged, of sector 0.
func cutAt(t *testing.T, l *Log, events int, lost Loss) byte {
	t.Helper()
	p := NewPlayer(l, nil)
	for range events {
		if !p.Step() {
			t.Fatalf("%d events only", len(l.Events()))
		}
	}
	return p.Cut(0, lost).Sector(0)[0]
}

func TestFlushCoversWhatHadEnded(t *testing.T) {
	l, h := &Log{}, &hand{}
	d, _ := l.Record(h)
	write(d, 0, 0, 512, 'a')
	h.end(0, nil)
	flush(d)                 // event 3
	write(d, 0, 0, 512, 'b') // event 4, in flight while the flush ends
	h.end(0, nil)            // event 5: the flush
	h.end(0, nil)            // event 6
	for events, want := range map[int][2]byte{1: {0, 'a'}, 2: {0, 'a'}, 3: {0, 'a'}, 4: {0, 'b'}, 5: {'a', 'b'}, 6: {'a', 'b'}} {
		for i, lost := range []Loss{LoseEverything, LoseNothing} {
			if got := cutAt(t, l, events, lost); got != want[i] {
				t.Errorf("after %d events, loss %d: %q, want %q", events, i, got, want[i])
			}
		}
	}
}

func TestForcedWriteReplacesWhatIsCached(t *testing.T) {
	l, h := &Log{}, &hand{}
	d, _ := l.Record(h)
	write(d, 0, 0, 1024, 'a')
	h.end(0, nil)
	write(d, block.FUA, 0, 512, 'b')
	h.end(0, nil)
	p := NewPlayer(l, nil)
	for p.Step() {
	}
	for _, lost := range []Loss{LoseEverything, LoseNothing} {
		if got := p.Cut(0, lost).Sector(0)[0]; got != 'b' {
			t.Errorf("sector 0 holds %q", got)
		}
	}
	if kept, gone := p.Cut(0, LoseNothing).Sector(1)[0], p.Cut(0, LoseEverything).Sector(1)[0]; kept != 'a' || gone != 0 {
		t.Errorf("sector 1 holds %q, or %q", kept, gone)
	}
}

// A failed request is in flight for ever; long ones tear where a disk may.
func TestPieces(t *testing.T) {
	l, h := &Log{}, &hand{}
	d, _ := l.Record(h)
	write(d, 0, 3584, 1024, 'a') // two blocks
	h.end(0, block.ErrIO)
	p := NewPlayer(l, map[int][]byte{0: bytes.Repeat([]byte{'o'}, 8192)})
	for p.Step() {
	}
	if n := p.Pieces(0); n != 2 {
		t.Fatalf("%d pieces", n)
	}
	for mask, want := range []string{"aa", "oa", "ao", "oo"} {
		m := p.Cut(0, LoseThese(uint64(mask)))
		if got := string([]byte{m.Sector(7)[0], m.Sector(8)[0]}); got != want {
			t.Errorf("loss %b: %s, want %s", mask, got, want)
		}
	}
	image := p.Cut(0, LoseNothing)
	back := &block.Request{Op: block.Read, Offset: 3584, Length: 1024, Data: make([]byte, 1024), Done: func(*block.Request, error) {}}
	image.Submit(back)
	if !bytes.Equal(back.Data, image.Bytes()[3584:4608]) || back.Data[0] != 'a' {
		t.Error("reads otherwise than its bytes")
	}
}
