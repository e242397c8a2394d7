package meta

import (
	"errors"
	"fmt"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
)

// ErrOverlap: metadata made anew would lie where those are that count until it
// is done.
var ErrOverlap = errors.New("the new metadata would lie over the old")

// Remake says how metadata are to be.
type Remake struct {
	Super     Super // what the superblock says from then on; size and sequence do not count
	DataBytes int64
	Bitmap    *dirty.Bitmap        // for DataBytes
	Log       []actlog.Transaction // of actlog.Log.Restate; Restated when Remake has succeeded
}

// Floor is the smallest size that the metadata can be made anew for, when the
// volume is to grow: internal ones go behind the old, which count until the new
// ones are whole.
func (s *Store) Floor() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fixed.Placement == External {
		return 0
	}
	if superOffsets(Internal, s.disk.Geometry().SizeBytes) != s.layout.supers {
		return s.layout.End // the device has grown
	}
	return s.layout.bitmapEnd()
}

// Ceiling is the largest size that the metadata can be made anew for when the
// volume is to become smaller: internal ones go before the old, into what is cut
// off.
func (s *Store) Ceiling() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fixed.Placement == External {
		return s.fixed.DataBytes
	}
	takes := int64(s.layout.RingBlocks+s.layout.BitmapPages) * BlockBytes
	return max(s.fixed.DataBytes-takes, 0) / BlockBytes * BlockBytes
}

// Room is the largest size that the metadata can be made anew for, where the
// data lie on a device of deviceBytes. External metadata count as they are. Both
// may be asked while the metadata are made anew.
func (s *Store) Room(deviceBytes int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := s.fixed.ActivitySlots
	if s.fixed.Placement == Internal {
		return DataBytesFor(deviceBytes, slots)
	}
	pages := s.disk.Geometry().SizeBytes/BlockBytes - int64(superBlocks+actlog.RingBlocks(slots))
	return min(deviceBytes, max(pages, 0)*dirty.PageExtents*dirty.ExtentBytes)
}

func (l *Layout) bitmapEnd() int64 { return l.BitmapOffset + int64(l.BitmapPages)*BlockBytes }

// Remake lays the metadata out anew for a volume of another size and keeps what
// they say: afterwards all of the bitmap is on disk, as it was given, and the ring
// holds Log. No write of the Store may be under way, or be asked for before Remake
// returns. The error wraps ErrOverlap or ErrTooSmall where it cannot be done and
// nothing was changed.
//
// A crash in between leaves the old metadata or the new, each of them whole: the
// first superblock of the new decides. Where the old lay, internal, is data then:
// it is marked until it reads zero.
func (s *Store) Remake(r Remake) error {
	l, err := s.planRemake(r.DataBytes)
	if err == nil {
		err = s.remake(&r, &l)
	}
	if err != nil {
		return fmt.Errorf("metadata of %s/%d: from %d to %d bytes: %w", s.fixed.Resource, s.fixed.Volume, s.fixed.DataBytes, r.DataBytes, err)
	}
	return nil
}

// planRemake is the layout for another size.
func (s *Store) planRemake(dataBytes int64) (Layout, error) {
	size, err := checkDevice(s.disk)
	if err != nil {
		return Layout{}, err
	}
	end := size
	if s.fixed.Placement == External {
		if end = NeededFor(dataBytes, s.fixed.ActivitySlots); end > size {
			return Layout{}, fmt.Errorf("%w: %d bytes of data need %d bytes of metadata, there are %d", ErrTooSmall, dataBytes, end, size)
		}
	}
	l, err := layoutOf(s.fixed.Placement, end, dataBytes, s.fixed.ActivitySlots)
	if err != nil {
		return Layout{}, err
	}
	l.supers = superOffsets(s.fixed.Placement, size)
	return l, s.apart(&l)
}

// apart: what is written before the new metadata count lies beside the old.
// External ring and bitmap begin where they did: only pages are added.
func (s *Store) apart(l *Layout) error {
	if s.fixed.Placement == External {
		return nil
	}
	old := &s.layout
	meets := func(from, to, a, b int64) bool { return from < b && a < to }
	fresh := [2]int64{l.RingOffset, l.bitmapEnd()}
	overlap := meets(fresh[0], fresh[1], old.RingOffset, old.bitmapEnd()) || meets(fresh[0], fresh[1], old.supers[0], old.supers[1]+BlockBytes)
	if l.supers != old.supers {
		overlap = overlap || meets(l.supers[0], l.supers[1]+BlockBytes, old.Start, old.End)
	}
	if l.Start < old.Start && fresh[1] > s.fixed.DataBytes {
		return fmt.Errorf("%w: %d bytes or less leave room for them", ErrOverlap, max(s.fixed.DataBytes-(l.bitmapEnd()-l.Start), 0))
	}
	if overlap {
		return fmt.Errorf("%w: these end at byte %d, and at %d those would begin; a volume that grows has %d bytes or more then",
			ErrOverlap, old.End, l.Start, s.Floor())
	}
	return nil
}

func (s *Store) remake(r *Remake, l *Layout) error {
	old, fixed := s.layout, s.fixed
	fixed.DataBytes, r.Super.DataBytes = r.DataBytes, r.DataBytes
	grows := r.DataBytes > s.fixed.DataBytes
	if fixed.Placement == External {
		if err := s.remakeInPlace(r, l, grows); err != nil {
			return err
		}
		s.count(fixed, l)
		return nil
	}
	at, length := s.fixed.DataBytes, int64(0)
	if grows {
		length = s.Floor() - at
	}
	marked := r.Bitmap.Clone()
	marked.Set(at, length)
	if err := s.writeContents(r.Log, marked, l); err != nil {
		return err
	}
	if err := s.switchTo(r.Super, l); err != nil {
		return err
	}
	s.count(fixed, l)
	if old.supers != l.supers {
		if err := eraseSupers(s.disk, old.supers[:]...); err != nil {
			return err
		}
	}
	return s.sweep(at, length, r.Bitmap, marked)
}

// count has another layout count from now on.
func (s *Store) count(fixed Super, l *Layout) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fixed, s.layout = fixed, *l
}

// remakeInPlace is for external metadata. What both sizes have is written before the
// superblock, as in any other save of it. The last page that both have lies at one
// place: a mark in it that only the other size has makes all of it count, should it
// end here. So a smaller one writes it afterwards, and the ring, which forgets what
// is cut off.
func (s *Store) remakeInPlace(r *Remake, l *Layout, grows bool) error {
	last := min(s.layout.BitmapPages, l.BitmapPages) - 1
	if grows {
		last = l.BitmapPages
		if err := s.appendLog(l, r.Log); err != nil {
			return err
		}
	}
	if err := s.writePages(l, r.Bitmap, 0, last); err != nil {
		return err
	}
	if err := s.switchTo(r.Super, l); err != nil || grows {
		return err
	}
	if err := s.writePages(l, r.Bitmap, last, l.BitmapPages); err != nil {
		return err
	}
	return s.appendLog(l, r.Log)
}

// writeContents writes ring and bitmap into a layout, durably.
func (s *Store) writeContents(log []actlog.Transaction, bits *dirty.Bitmap, l *Layout) error {
	if err := s.writeLog(l, log); err != nil {
		return err
	}
	return s.writePages(l, bits, 0, l.BitmapPages)
}

// writeLog fills the ring.
func (s *Store) writeLog(l *Layout, log []actlog.Transaction) error {
	if len(log) != l.RingBlocks {
		return fmt.Errorf("%d transactions for a ring of %d blocks: %w", len(log), l.RingBlocks, ErrMalformed)
	}
	return writeBlocks(s.disk, l.RingOffset, l.RingBlocks, func(i int, b []byte) error {
		for _, tx := range log {
			if tx.Number%uint64(l.RingBlocks) == uint64(i) {
				return encodeActivity(b, s.fixed.Device, s.fixed.ActivitySlots, tx)
			}
		}
		return fmt.Errorf("no transaction for block %d of the ring: %w", i, ErrMalformed)
	})
}

// appendLog writes transactions over the oldest of the ring, each durable before the
// next: a cut tears one at most, and leaves what an ordinary one does.
func (s *Store) appendLog(l *Layout, log []actlog.Transaction) error {
	for _, tx := range log {
		at := l.RingOffset + int64(tx.Number%uint64(l.RingBlocks))*BlockBytes
		err := writeBlocks(s.disk, at, 1, func(_ int, b []byte) error {
			return encodeActivity(b, s.fixed.Device, s.fixed.ActivitySlots, tx)
		})
		if err != nil {
			return err
		}
		if err := flush(s.disk); err != nil {
			return err
		}
	}
	return nil
}

// writePages writes pages [from, to) of a bitmap, durably.
func (s *Store) writePages(l *Layout, bits *dirty.Bitmap, from, to int) error {
	var payload []byte
	err := writeBlocks(s.disk, l.BitmapOffset+int64(from)*BlockBytes, to-from, func(i int, b []byte) error {
		payload = bits.Page(from+i, payload)
		return encodePage(b, s.fixed.Device, from+i, payload)
	})
	if err != nil {
		return err
	}
	return flush(s.disk)
}

// switchTo writes both superblocks: the first makes the new layout count, the
// second keeps the old one from coming back when the first is torn later.
func (s *Store) switchTo(super Super, l *Layout) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range superBlocks {
		super.Sequence = s.mu.sequence + 1
		if err := writeSuper(s.disk, &super, l); err != nil {
			return err
		}
		s.mu.sequence = super.Sequence
	}
	return nil
}

// sweep makes zeroes of what the old metadata left in the data, and then takes
// the marks from it.
func (s *Store) sweep(offset, length int64, bits, marked *dirty.Bitmap) error {
	if err := zero(s.disk, offset, length); err != nil {
		return err
	}
	for i := range s.layout.BitmapPages {
		if bits.Version(i) == marked.Version(i) {
			continue
		}
		if err := s.writePages(&s.layout, bits, i, i+1); err != nil {
			return err
		}
	}
	return nil
}

// zero makes a range read zero, durably.
func zero(disk block.Disk, offset, length int64) error {
	if length <= 0 {
		return nil
	}
	for length > 0 {
		n := min(length, 16<<20)
		if err := do(disk, &block.Request{Op: block.WriteZeroes, Offset: offset, Length: n}); err != nil {
			return fmt.Errorf("zero what held metadata: %w", err)
		}
		offset, length = offset+n, length-n
	}
	return flush(disk)
}
