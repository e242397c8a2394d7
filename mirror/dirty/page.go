package dirty

import (
	"encoding/binary"
	"fmt"
)

// Pages is the number of pages.
func (b *Bitmap) Pages() int { return len(b.pages) }

// Page copies the payload of page i into dst[:PageBytes], allocating when dst
// has no room for it, and returns it. Bits past the end of the device are zero.
// Take Version(i) together with it, and give that to Saved once it is durable.
func (b *Bitmap) Page(i int, dst []byte) []byte {
	if cap(dst) < PageBytes {
		dst = make([]byte, PageBytes)
	}
	dst = dst[:PageBytes]
	words := b.pageWords(i)
	for n, word := range words {
		binary.LittleEndian.PutUint64(dst[8*n:], word)
	}
	clear(dst[8*len(words):])
	return dst
}

// LoadPage replaces page i by what was read from the disk; the page then counts
// as saved. The payload must be PageBytes long and have no bits past the end of
// the device; otherwise nothing changes.
func (b *Bitmap) LoadPage(i int, payload []byte) error {
	if err := b.checkPage(i, payload); err != nil {
		return err
	}
	base := i * pageWords
	for n := range b.pageWords(i) {
		word := binary.LittleEndian.Uint64(payload[8*n:])
		b.andNot(base+n, ^word)
		b.or(base+n, word)
	}
	b.Saved(i, b.pages[i].version)
	return nil
}

// MergePage marks what is marked in the peer's page i, and returns how many
// blocks were not marked before. The payload is judged as by LoadPage.
func (b *Bitmap) MergePage(i int, payload []byte) (changed int64, err error) {
	if err := b.checkPage(i, payload); err != nil {
		return 0, err
	}
	base := i * pageWords
	for n := range b.pageWords(i) {
		changed += b.or(base+n, binary.LittleEndian.Uint64(payload[8*n:]))
	}
	return changed, nil
}

// PageEmpty reports whether no block of page i is marked.
func (b *Bitmap) PageEmpty(i int) bool { return b.pages[i].count == 0 }

// Unsaved reports whether a bit of page i was set since the page was last saved:
// it must be written before an extent of it leaves the activity log.
func (b *Bitmap) Unsaved(i int) bool { return b.pages[i].lastSet > b.pages[i].saved }

// Stale reports whether page i differs from the disk in any way. A stale page
// that is not Unsaved only makes a later resync copy more than it must.
func (b *Bitmap) Stale(i int) bool { return b.pages[i].version > b.pages[i].saved }

// Version counts the changes of page i.
func (b *Bitmap) Version(i int) uint64 { return b.pages[i].version }

// Saved notes that the payload page i had at version is durable. What changed
// since stays Unsaved or Stale. Writes of one page must not overlap: the disk
// would not tell which of them it kept.
func (b *Bitmap) Saved(i int, version uint64) {
	p := &b.pages[i]
	if version <= p.saved || version > p.version {
		return
	}
	if p.version == version {
		b.stale--
	}
	p.saved = version
}

// NextStale finds the first stale page at or after from.
func (b *Bitmap) NextStale(from int) (page int, ok bool) {
	if b.stale == 0 {
		return 0, false
	}
	for i := max(from, b.fresh); i < len(b.pages); i++ {
		if b.Stale(i) {
			if from <= b.fresh {
				b.fresh = i
			}
			return i, true
		}
	}
	return 0, false
}

// changed accounts for a change of n bits in one page.
func (b *Bitmap) changed(i, n int) {
	p := &b.pages[i]
	if p.version == p.saved {
		b.stale++
		b.fresh = min(b.fresh, i)
	}
	p.version++
	if n > 0 {
		p.lastSet = p.version
	}
	p.count += int32(n)
	b.count += int64(n)
}

func (b *Bitmap) pageWords(i int) []uint64 {
	return b.words[i*pageWords : min((i+1)*pageWords, len(b.words))]
}

func (b *Bitmap) checkPage(i int, payload []byte) error {
	if i < 0 || i >= len(b.pages) {
		return fmt.Errorf("bitmap page %d of a device of %d bytes, which has %d", i, b.size, len(b.pages))
	}
	if len(payload) != PageBytes {
		return fmt.Errorf("bitmap page %d has %d bytes, want %d", i, len(payload), PageBytes)
	}
	valid := min(b.blocks-int64(i)*pageBits, pageBits)
	for n := valid / 8; n < PageBytes; n++ {
		stray := payload[n]
		if n == valid/8 {
			stray >>= valid % 8
		}
		if stray != 0 {
			return fmt.Errorf("bitmap page %d marks blocks past the end of a device of %d bytes", i, b.size)
		}
	}
	return nil
}
