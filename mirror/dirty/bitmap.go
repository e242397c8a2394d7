// Package dirty is the quick-sync bitmap: one bit per block of 4 KiB, set when
// the peer's copy of that block is not known to be the same. It is pure memory;
// it knows which of its pages differ from the disk, and leaves the writing to
// whoever holds it.
//
// A Bitmap is not safe for concurrent use. Its mutators allocate nothing.
package dirty

import (
	"fmt"
	"math/bits"
)

const (
	// BlockBytes is what one bit stands for.
	BlockBytes = 4096
	// ExtentBytes is the extent of the activity log, 1024 blocks.
	ExtentBytes = 4 << 20
	// PageExtents is how many extents one page holds, so that no extent straddles two.
	PageExtents = 31
	// PageBytes is the payload of one on-disk page of 4 KiB.
	PageBytes = PageExtents * ExtentBytes / BlockBytes / 8

	wordBits  = 64
	pageWords = PageBytes / 8
	pageBits  = PageBytes * 8
)

// MaxSizeBytes is the largest device a Bitmap can be made for: 1 PiB, a bitmap
// of 32 GiB.
const MaxSizeBytes = 1 << 50

// Bitmap is the set of blocks that are out of sync.
type Bitmap struct {
	size   int64 // bytes
	blocks int64
	count  int64 // bits set

	words []uint64
	// summary[0] has a bit per word, summary[n] a bit per word of summary[n-1]:
	// set when that word is not zero. The last one is a single word.
	summary [][]uint64

	pages []page
	stale int // pages for which Stale is true
	fresh int // none of them is before this one
}

// page is what is known of one page beside its bits. Versions count the changes
// of the page since the bitmap was made.
type page struct {
	version uint64 // of the bits in memory
	lastSet uint64 // the last version in which a bit was set
	saved   uint64 // the version known to be on disk
	count   int32  // bits set
}

// New makes an empty bitmap for a device of sizeBytes; its pages count as
// saved. It panics when the size is not in [0, MaxSizeBytes].
func New(sizeBytes int64) *Bitmap {
	if sizeBytes < 0 || sizeBytes > MaxSizeBytes {
		panic(fmt.Sprintf("dirty: a bitmap for %d bytes; the limit is %d", sizeBytes, int64(MaxSizeBytes)))
	}
	b := &Bitmap{size: sizeBytes, blocks: ceil(sizeBytes, BlockBytes)}
	b.words = make([]uint64, ceil(b.blocks, wordBits))
	b.pages = make([]page, PagesFor(sizeBytes))
	for n := len(b.words); n > 1; {
		n = int(ceil(int64(n), wordBits))
		b.summary = append(b.summary, make([]uint64, n))
	}
	return b
}

// PagesFor is the number of pages of a bitmap for a device of sizeBytes.
func PagesFor(sizeBytes int64) int { return int(ceil(ceil(sizeBytes, BlockBytes), pageBits)) }

// PageOfExtent is the page that holds the bits of an extent.
func PageOfExtent(extent uint32) int { return int(extent / PageExtents) }

func ceil(n, unit int64) int64 { return (n + unit - 1) / unit }

// SizeBytes is the size of the device.
func (b *Bitmap) SizeBytes() int64 { return b.size }

// Count is the number of blocks out of sync.
func (b *Bitmap) Count() int64 { return b.count }

// DirtyBytes is what a resync would have to copy: Count blocks, the last one cut
// to the size of the device.
func (b *Bitmap) DirtyBytes() int64 {
	bytes := b.count * BlockBytes
	if cut := b.blocks*BlockBytes - b.size; cut > 0 && b.bit(b.blocks-1) {
		bytes -= cut
	}
	return bytes
}

// Set marks every block that [off, off+length) touches and returns how many were
// not marked before. What lies outside the device is ignored.
func (b *Bitmap) Set(off, length int64) (changed int64) {
	first, end := b.touched(off, length)
	for first < end {
		w, mask, n := span(first, end)
		changed += b.or(w, mask)
		first += n
	}
	return changed
}

// Clear unmarks every block that lies entirely in [off, off+length) and returns
// how many were marked. The last block of a device that ends inside it counts as
// whole when the range reaches the end of the device.
func (b *Bitmap) Clear(off, length int64) (changed int64) {
	first, end := b.whole(off, length)
	for first < end {
		w, mask, n := span(first, end)
		changed += b.andNot(w, mask)
		first += n
	}
	return changed
}

// SetAll marks the whole device.
func (b *Bitmap) SetAll() { b.Set(0, b.size) }

// ClearAll unmarks the whole device.
func (b *Bitmap) ClearAll() { b.Clear(0, b.size) }

// Any reports whether a block that [off, off+length) touches is marked.
func (b *Bitmap) Any(off, length int64) bool {
	first, end := b.touched(off, length)
	if first >= end {
		return false
	}
	next, ok := b.next(first)
	return ok && next < end
}

// NextRun finds the first marked block at or after the block that from lies in,
// and how far the marked blocks go on from there: at most maxBytes (but at least
// one block), never past the end of the device.
func (b *Bitmap) NextRun(from, maxBytes int64) (off, length int64, ok bool) {
	if from >= b.size {
		return 0, 0, false
	}
	first, ok := b.next(max(from, 0) / BlockBytes)
	if !ok {
		return 0, 0, false
	}
	limit := min(first+max(maxBytes/BlockBytes, 1), b.blocks)
	end := first
	for end < limit {
		ones := int64(bits.TrailingZeros64(^(b.words[end/wordBits] >> (end % wordBits))))
		ones = min(ones, wordBits-end%wordBits)
		end += ones
		if ones == 0 || end%wordBits != 0 {
			break
		}
	}
	end = min(end, limit)
	off = first * BlockBytes
	return off, min(end*BlockBytes, b.size) - off, true
}

// touched is the range of blocks a byte range reaches into.
func (b *Bitmap) touched(off, length int64) (first, end int64) {
	off, stop := b.clip(off, length)
	return off / BlockBytes, ceil(stop, BlockBytes)
}

// whole is the range of blocks a byte range covers entirely.
func (b *Bitmap) whole(off, length int64) (first, end int64) {
	off, stop := b.clip(off, length)
	if stop == b.size {
		return ceil(off, BlockBytes), b.blocks
	}
	return ceil(off, BlockBytes), stop / BlockBytes
}

// clip cuts a byte range to the device; an empty range comes back as [0, 0).
func (b *Bitmap) clip(off, length int64) (start, stop int64) {
	if length <= 0 || off >= b.size {
		return 0, 0
	}
	stop = b.size
	if off < 0 || length < b.size-off {
		stop = off + length
	}
	return max(off, 0), max(stop, 0)
}

// span is the part of blocks [first, end) that lies in first's word.
func span(first, end int64) (word int, mask uint64, n int64) {
	shift := first % wordBits
	n = min(wordBits-shift, end-first)
	return int(first / wordBits), (^uint64(0) >> (wordBits - n)) << shift, n
}

func (b *Bitmap) bit(block int64) bool {
	return b.words[block/wordBits]>>(block%wordBits)&1 != 0
}

// next finds the first marked block at or after block.
func (b *Bitmap) next(block int64) (int64, bool) {
	w := int(block / wordBits)
	if w >= len(b.words) {
		return 0, false
	}
	if rest := b.words[w] >> (block % wordBits); rest != 0 {
		return block + int64(bits.TrailingZeros64(rest)), true
	}
	w, ok := b.nextWord(w + 1)
	if !ok {
		return 0, false
	}
	return int64(w)*wordBits + int64(bits.TrailingZeros64(b.words[w])), true
}

// nextWord finds the first word at or after w that is not zero: up the summaries
// until one knows of something further on, then down to it.
func (b *Bitmap) nextWord(w int) (int, bool) {
	at, level := w, 0
	for ; ; level++ {
		if level == len(b.summary) || at/wordBits >= len(b.summary[level]) {
			return 0, false
		}
		if rest := b.summary[level][at/wordBits] >> (at % wordBits); rest != 0 {
			at += bits.TrailingZeros64(rest)
			break
		}
		at = at/wordBits + 1
	}
	for ; level > 0; level-- {
		at = at*wordBits + bits.TrailingZeros64(b.summary[level-1][at])
	}
	return at, true
}

// or sets the bits of mask in one word.
func (b *Bitmap) or(w int, mask uint64) int64 {
	old := b.words[w]
	added := mask &^ old
	if added == 0 {
		return 0
	}
	b.words[w] = old | added
	if old == 0 {
		b.summarise(w)
	}
	n := bits.OnesCount64(added)
	b.changed(w/pageWords, n)
	return int64(n)
}

// andNot clears the bits of mask in one word.
func (b *Bitmap) andNot(w int, mask uint64) int64 {
	removed := b.words[w] & mask
	if removed == 0 {
		return 0
	}
	b.words[w] &^= removed
	if b.words[w] == 0 {
		b.unsummarise(w)
	}
	n := bits.OnesCount64(removed)
	b.changed(w/pageWords, -n)
	return int64(n)
}

func (b *Bitmap) summarise(at int) {
	for _, level := range b.summary {
		old := level[at/wordBits]
		level[at/wordBits] = old | 1<<(at%wordBits)
		if old != 0 {
			return
		}
		at /= wordBits
	}
}

func (b *Bitmap) unsummarise(at int) {
	for _, level := range b.summary {
		level[at/wordBits] &^= 1 << (at % wordBits)
		if level[at/wordBits] != 0 {
			return
		}
		at /= wordBits
	}
}
