package meta

import (
	"fmt"

	"hapair/mirror/block"
	"hapair/mirror/dirty"
)

// Resize lays the metadata of a copy that holds nothing yet out anew, for a
// volume of dataBytes, with an empty bitmap and an empty activity log. super is
// what the superblock says from then on; its size does not count. No write may
// be under way, or be asked for before Resize returns.
//
// A crash in between leaves the old size. Old bitmap and log may be damaged
// then, which makes them say "all of it": true of a copy that holds nothing.
func (s *Store) Resize(super Super, dataBytes int64) error {
	if err := s.resize(super, dataBytes); err != nil {
		return fmt.Errorf("metadata of %s/%d: from %d to %d bytes: %w", s.fixed.Resource, s.fixed.Volume, s.fixed.DataBytes, dataBytes, err)
	}
	return nil
}

func (s *Store) resize(super Super, dataBytes int64) error {
	end := s.layout.End
	if s.fixed.Placement == External {
		end = NeededFor(dataBytes, s.fixed.ActivitySlots)
		if end > s.layout.End {
			return fmt.Errorf("%w: %d bytes of data need %d bytes of metadata, there are %d", ErrTooSmall, dataBytes, end, s.layout.End)
		}
	}
	l, err := layoutOf(s.fixed.Placement, end, dataBytes, s.fixed.ActivitySlots)
	if err != nil {
		return err
	}
	l.supers = s.layout.supers
	fixed := s.fixed
	fixed.DataBytes, super.DataBytes = dataBytes, dataBytes
	if err := writeRing(s.disk, &fixed, &l); err != nil {
		return err
	}
	if err := writeEmptyBitmap(s.disk, &fixed, &l); err != nil {
		return err
	}
	if err := flush(s.disk); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for range superBlocks { // the old one must not come back when the new one is torn
		super.Sequence = s.mu.sequence + 1
		if err := writeSuper(s.disk, &super, &l); err != nil {
			return err
		}
		s.mu.sequence = super.Sequence
	}
	s.fixed, s.layout = fixed, l
	return nil
}

func writeEmptyBitmap(disk block.Disk, s *Super, l *Layout) error {
	var empty [dirty.PageBytes]byte
	return writeBlocks(disk, l.BitmapOffset, l.BitmapPages, func(i int, b []byte) error {
		return encodePage(b, s.Device, i, empty[:])
	})
}
