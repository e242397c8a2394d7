package dirty

// Clone returns a copy that shares nothing; its versions are those of b.
func (b *Bitmap) Clone() *Bitmap {
	n := New(b.size)
	n.take(b)
	return n
}

// Resize makes it a bitmap for a device of sizeBytes. What is marked stays
// marked, as far as it is on the device; blocks that are new are not marked. A
// page that loses marks is stale then; one that is new counts as saved. It
// panics when the size is not in [0, MaxSizeBytes].
func (b *Bitmap) Resize(sizeBytes int64) {
	for first, end := ceil(sizeBytes, BlockBytes), b.blocks; first < end; {
		w, mask, n := span(first, end)
		b.andNot(w, mask)
		first += n
	}
	n := New(sizeBytes)
	n.take(b)
	*b = *n
}

// take takes over the bits and pages of another, as far as they fit; o marks
// nothing beyond.
func (b *Bitmap) take(o *Bitmap) {
	copy(b.words, o.words)
	copy(b.pages, o.pages)
	for w, word := range b.words {
		if word != 0 {
			b.summarise(w)
		}
	}
	b.count = o.count
	for i := range b.pages {
		if b.Stale(i) {
			b.stale++
		}
	}
}
