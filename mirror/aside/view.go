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
	if err := m.mustBeWhole(r); err != nil {
		return err
	}
	end := (r.End()-1)/BlockBytes + 1
	for b := r.Offset / BlockBytes; b < end; {
		n, err := v.readRun(m, r, b, end)
		if err != nil {
			return err
		}
		b += n
	}
	if err := m.mustBeWhole(r); err != nil {
		return err
	}
	if v.disk.Image() != m { // what was read from the disk may have been overwritten, and not saved
		return fmt.Errorf("%s: the image is gone: %w", r, block.ErrClosed)
	}
	return nil
}

func (m *Image) mustBeWhole(r *block.Request) error {
	if s := m.State(); s.Phase == Incomplete {
		return fmt.Errorf("%s: the image is incomplete (%s): %w", r, s.Why, block.ErrIO)
	}
	return nil
}

// readRun reads from block b on one that is saved, or those up to end that are not, and
// says how many: 0 where the disk may have been overwritten while it was read.
func (v *View) readRun(m *Image, r *block.Request, b, end int64) (int64, error) {
	if m.Saved(b) {
		data := make([]byte, BlockBytes)
		if err := m.ReadAt(data, b); err != nil {
			return 0, fmt.Errorf("%s: %w: %w", r, block.ErrIO, err)
		}
		copyPart(r, b, data)
		return 1, nil
	}
	blocks := []int64{b}
	for next := b + 1; next < end && !m.Saved(next) && len(blocks) < block.MaxTransferBytes/BlockBytes; next++ {
		blocks = append(blocks, next)
	}
	pieces, release, err := readBlocks(v.disk.inner, m.Header.SizeBytes, blocks)
	defer release()
	if err != nil || m.anySaved(b, int64(len(blocks))) {
		return 0, err
	}
	copyPart(r, b, pieces[0].data)
	return int64(len(blocks)), nil
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
