package dirty

import (
	"math/rand/v2"
	"testing"
)

// A bitmap that was resized is like one that was made in that size and marked in
// the same places.
func TestResize(t *testing.T) {
	const page = PageExtents * ExtentBytes
	sizes := []int64{0, 4096, 4096 + 512, 3*ExtentBytes + 512, page, page + 4096, 5*page - 512, 70 * page}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, from := range sizes {
		for _, to := range sizes {
			b := New(from)
			for range 200 {
				if from > 0 {
					b.Set(rng.Int64N(from), 1+rng.Int64N(3*BlockBytes))
				}
			}
			for i := range b.Pages() {
				if i%2 == 0 {
					b.Saved(i, b.Version(i))
				}
			}
			before := b.Clone()
			b.Resize(to)
			want := New(to)
			for at := int64(0); ; {
				off, length, ok := before.NextRun(at, BlockBytes)
				if !ok {
					break
				}
				at = off + length
				if off < ceil(to, BlockBytes)*BlockBytes {
					want.Set(off, 1)
				}
			}
			same(t, b, want)
			for i := range min(b.Pages(), before.Pages()) {
				if before.Stale(i) && !b.Stale(i) {
					t.Fatalf("%d to %d: page %d was stale, and is not", from, to, i)
				}
			}
		}
	}
}

func same(t *testing.T, b, want *Bitmap) {
	t.Helper()
	if b.Count() != want.Count() || b.SizeBytes() != want.SizeBytes() || b.Pages() != want.Pages() || b.DirtyBytes() != want.DirtyBytes() {
		t.Fatalf("%d bytes, %d pages: %d blocks, want %d bytes, %d pages: %d blocks", b.size, b.Pages(), b.Count(), want.size, want.Pages(), want.Count())
	}
	for i := range b.Pages() {
		if string(b.Page(i, nil)) != string(want.Page(i, nil)) || b.PageEmpty(i) != want.PageEmpty(i) {
			t.Fatalf("%d bytes: page %d differs", b.size, i)
		}
	}
	stale := 0
	for i := range b.Pages() {
		if b.Stale(i) {
			stale++
		}
	}
	if stale != b.stale {
		t.Fatalf("%d pages are stale, it counts %d", stale, b.stale)
	}
	for at := int64(0); ; {
		off, length, ok := b.NextRun(at, 1<<40)
		o, l, k := want.NextRun(at, 1<<40)
		if off != o || length != l || ok != k {
			t.Fatalf("from %d: %d+%d %v, want %d+%d %v", at, off, length, ok, o, l, k)
		}
		if !ok {
			return
		}
		at = off + length
	}
}

// What a clone is told does not reach the other.
func TestCloneSharesNothing(t *testing.T) {
	b := New(1 << 30)
	b.Set(0, 1<<20)
	c := b.Clone()
	same(t, c, b)
	if c.Version(0) != b.Version(0) {
		t.Fatalf("version %d, want %d", c.Version(0), b.Version(0))
	}
	c.SetAll()
	c.Saved(0, c.Version(0))
	if b.Count() != 256 || !b.Stale(0) {
		t.Fatalf("%d blocks, stale %v", b.Count(), b.Stale(0))
	}
}
