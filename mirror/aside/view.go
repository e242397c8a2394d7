package aside

import (
	"fmt"

	"hapair/mirror/block"
)

// View is what was given up, as a disk that is only read: the Handler of a front end.
type View struct{ disk *Disk }

// View shows what is kept.
func (d *Disk) View() *View { return &View{d} }

// Submit answers reads and flushes; everything else is refused.
func (v *View) Submit(r *block.Request) {
	switch m := v.disk.Image(); {
	case m == nil:
		r.Answer(fmt.Errorf("%s: the image is gone: %w", r, block.ErrClosed))
	case r.Op == block.Flush:
		r.Answer(nil)
	case r.Op != block.Read:
		r.Answer(fmt.Errorf("%s: what was given up is only read: %w", r, block.ErrNotSupp))
	default:
		if err := block.Check(r, v.geometry(m)); err != nil {
			r.Answer(err)
			return
		}
		go func() { r.Answer(v.read(m, r)) }()
	}
}

func (v *View) geometry(m *Image) block.Geometry {
	g := v.disk.Geometry()
	g.SizeBytes, g.MaxTransferBytes = m.Header.SizeBytes, block.MaxTransferBytes
	return g
}

// read fills a request run by run, each from where its blocks are.
func (v *View) read(m *Image, r *block.Request) error {
	if s := m.State(); s.Phase == Incomplete {
		return fmt.Errorf("%s: the image is incomplete (%s): %w", r, s.Why, block.ErrIO)
	}
	first, end := r.Offset/BlockBytes, (r.End()-1)/BlockBytes+1
	buf := make([]byte, BlockBytes)
	for b := first; b < end; {
		saved, n := m.Saved(b), int64(1)
		for b+n < end && m.Saved(b+n) == saved && !saved && n < block.MaxTransferBytes/BlockBytes {
			n++
		}
		data := buf
		if !saved {
			blocks := make([]int64, n)
			for i := range blocks {
				blocks[i] = b + int64(i)
			}
			pieces, release, err := readBlocks(v.disk.inner, m.Header.SizeBytes, blocks)
			if err != nil {
				release()
				return err
			}
			if m.anySaved(b, n) { // overwritten while it was read, perhaps
				release()
				continue
			}
			copyPart(r, b, pieces[0].data)
			release()
			b += n
			continue
		}
		if err := m.ReadAt(data, b); err != nil {
			return fmt.Errorf("%s: %w: %w", r, block.ErrIO, err)
		}
		copyPart(r, b, data)
		b++
	}
	if s := m.State(); s.Phase == Incomplete {
		return fmt.Errorf("%s: the image is incomplete (%s): %w", r, s.Why, block.ErrIO)
	}
	if v.disk.Image() != m { // what was read from the disk may have been overwritten, and not saved
		return fmt.Errorf("%s: the image is gone: %w", r, block.ErrClosed)
	}
	return nil
}

func (m *Image) anySaved(b, n int64) bool {
	for i := range n {
		if m.Saved(b + i) {
			return true
		}
	}
	return false
}

// copyPart puts what a run of blocks from b holds where a request wants it.
func copyPart(r *block.Request, b int64, data []byte) {
	at := b*BlockBytes - r.Offset
	if at < 0 {
		data, at = data[-at:], 0
	}
	copy(r.Data[at:], data)
}
