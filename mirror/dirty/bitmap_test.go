package dirty

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// model is the bitmap as a map, with what the disk would hold.
type model struct {
	size  int64
	dirty map[int64]bool
}

func (m *model) blocks() int64 { return (m.size + BlockBytes - 1) / BlockBytes }

func (m *model) each(off, length int64, whole bool, fn func(block int64)) {
	for n := range m.blocks() {
		start, end := n*BlockBytes, min((n+1)*BlockBytes, m.size)
		if whole && off <= start && off+length >= end && length > 0 {
			fn(n)
		}
		if !whole && length > 0 && off < end && off+length > start {
			fn(n)
		}
	}
}

func (m *model) run(from, maxBytes int64) (off, length int64, ok bool) {
	if from >= m.size { // the end of the last run of a device that ends inside a block
		return 0, 0, false
	}
	n := from / BlockBytes
	for ; n < m.blocks() && !m.dirty[n]; n++ {
	}
	if n >= m.blocks() {
		return 0, 0, false
	}
	end := n + 1
	for ; end < m.blocks() && m.dirty[end] && (end-n+1)*BlockBytes <= maxBytes; end++ {
	}
	return n * BlockBytes, min(end*BlockBytes, m.size) - n*BlockBytes, true
}

func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Small devices for dense cases, one of several pages for the seams.
		size := rapid.OneOf(rapid.Int64Range(0, 40*BlockBytes), rapid.Int64Range(1, 5000*BlockBytes),
			rapid.Just[int64](pageBits*BlockBytes+BlockBytes+512)).Draw(t, "size") &^ 511
		b, m := New(size), &model{size: size, dirty: map[int64]bool{}}
		ranges := func(t *rapid.T) (int64, int64) {
			off := rapid.Int64Range(0, size+BlockBytes).Draw(t, "off") &^ 511
			return off, rapid.OneOf(rapid.Int64Range(0, 20*BlockBytes), rapid.Int64Range(0, size)).Draw(t, "length") &^ 511
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				off, length := ranges(t)
				var want int64
				m.each(off, length, false, func(n int64) {
					if !m.dirty[n] {
						want++
					}
					m.dirty[n] = true
				})
				if got := b.Set(off, length); got != want {
					t.Fatalf("Set(%d, %d) = %d, want %d", off, length, got, want)
				}
			},
			"clear": func(t *rapid.T) {
				off, length := ranges(t)
				var want int64
				m.each(off, length, true, func(n int64) {
					if m.dirty[n] {
						want++
					}
					delete(m.dirty, n)
				})
				if got := b.Clear(off, length); got != want {
					t.Fatalf("Clear(%d, %d) = %d, want %d", off, length, got, want)
				}
			},
			"any": func(t *rapid.T) {
				off, length := ranges(t)
				want := false
				m.each(off, length, false, func(n int64) { want = want || m.dirty[n] })
				if got := b.Any(off, length); got != want {
					t.Fatalf("Any(%d, %d) = %v", off, length, got)
				}
			},
			"run": func(t *rapid.T) {
				from, limit := ranges(t)
				limit = max(limit, BlockBytes)
				off, length, ok := b.NextRun(from, limit)
				wantOff, wantLength, wantOK := m.run(from, limit)
				if off != wantOff || length != wantLength || ok != wantOK {
					t.Fatalf("NextRun(%d, %d) = %d, %d, %v; want %d, %d, %v",
						from, limit, off, length, ok, wantOff, wantLength, wantOK)
				}
			},
			"all":  func(t *rapid.T) { b.SetAll(); m.each(0, size, false, func(n int64) { m.dirty[n] = true }) },
			"none": func(t *rapid.T) { b.ClearAll(); m.dirty = map[int64]bool{} },
			"": func(t *rapid.T) {
				var bytes int64
				for n := range m.dirty {
					bytes += min((n+1)*BlockBytes, size) - n*BlockBytes
				}
				if b.Count() != int64(len(m.dirty)) || b.DirtyBytes() != bytes || b.SizeBytes() != size {
					t.Fatalf("Count %d DirtyBytes %d, want %d and %d", b.Count(), b.DirtyBytes(), len(m.dirty), bytes)
				}
			},
		})
	})
}

// Pages are written at some moment and become durable later, in the middle of
// further changes; what the disk holds must never lack a bit of a page that is
// not Unsaved, nor differ at all from one that is not Stale.
func TestPagesAgainstDisk(t *testing.T) {
	const size = 3*pageBits*BlockBytes - 7*512
	rapid.Check(t, func(t *rapid.T) {
		b := New(size)
		disk, flying := map[int][]byte{}, map[int][]byte{}
		version := map[int]uint64{}
		for i := range b.Pages() {
			disk[i] = make([]byte, PageBytes)
		}
		// Around the seams between pages.
		offset := rapid.Custom(func(t *rapid.T) int64 {
			seam := rapid.Int64Range(0, 3).Draw(t, "seam") * pageBits * BlockBytes
			return max(0, seam+rapid.Int64Range(-40, 40).Draw(t, "block")*BlockBytes)
		})
		length := rapid.Int64Range(1, 70*BlockBytes)
		which := rapid.IntRange(0, b.Pages()-1)
		t.Repeat(map[string]func(*rapid.T){
			"set":   func(t *rapid.T) { b.Set(offset.Draw(t, "off"), length.Draw(t, "length")) },
			"clear": func(t *rapid.T) { b.Clear(offset.Draw(t, "off"), length.Draw(t, "length")) },
			"start": func(t *rapid.T) {
				i := which.Draw(t, "page")
				if flying[i] == nil {
					flying[i], version[i] = b.Page(i, nil), b.Version(i)
				}
			},
			"durable": func(t *rapid.T) {
				i := which.Draw(t, "page")
				if flying[i] != nil {
					disk[i], flying[i] = flying[i], nil
					b.Saved(i, version[i])
				}
			},
			"reattach": func(t *rapid.T) {
				b, flying = New(size), map[int][]byte{}
				for i := range disk {
					if err := b.LoadPage(i, disk[i]); err != nil {
						t.Fatal(err)
					}
				}
			},
			"next": func(t *rapid.T) {
				from := rapid.IntRange(-1, b.Pages()).Draw(t, "from")
				page, found := b.NextStale(from)
				for i := max(from, 0); i < b.Pages(); i++ {
					if b.Stale(i) {
						if !found || page != i {
							t.Fatalf("NextStale(%d) = %d, %v, and page %d is", from, page, found, i)
						}
						return
					}
				}
				if found {
					t.Fatalf("NextStale(%d) = %d, and none is", from, page)
				}
			},
			"": func(t *rapid.T) {
				first, found := b.NextStale(0)
				for i := range b.Pages() {
					checkPage(t, b, i, disk[i])
					if b.Stale(i) && (!found || first > i) {
						t.Fatalf("NextStale(0) = %d, %v, but %d is stale", first, found, i)
					}
				}
				if found && !b.Stale(first) {
					t.Fatalf("NextStale(0) = %d, which is not stale", first)
				}
			},
		})
	})
}

func checkPage(t *rapid.T, b *Bitmap, i int, disk []byte) {
	now := b.Page(i, nil)
	if !b.Stale(i) && !bytes.Equal(now, disk) {
		t.Fatalf("page %d is not stale, but differs from the disk", i)
	}
	if b.PageEmpty(i) != bytes.Equal(now, make([]byte, PageBytes)) {
		t.Fatalf("PageEmpty(%d) = %v", i, b.PageEmpty(i))
	}
	if b.Unsaved(i) {
		if !b.Stale(i) {
			t.Fatalf("page %d is unsaved but not stale", i)
		}
		return
	}
	for n := range now {
		if now[n]&^disk[n] != 0 {
			t.Fatalf("page %d is not Unsaved, but the disk lacks bits of byte %d", i, n)
		}
	}
}

func TestMergePage(t *testing.T) {
	const size = 2*pageBits*BlockBytes - 512
	a, b := New(size), New(size)
	a.Set(0, BlockBytes)
	a.Set(size-512, 512)
	b.Set(0, 2*BlockBytes)
	for i, want := range []int64{0, 1} {
		if changed, err := b.MergePage(i, a.Page(i, nil)); err != nil || changed != want {
			t.Fatalf("MergePage(%d) = %d, %v; want %d", i, changed, err, want)
		}
	}
	if b.Count() != 3 || b.DirtyBytes() != 3*BlockBytes-512 {
		t.Fatalf("merged: %d blocks, %d bytes", b.Count(), b.DirtyBytes())
	}
}

func TestBadPages(t *testing.T) {
	b := New(10 * BlockBytes)
	stray := make([]byte, PageBytes)
	stray[1] = 1 << 2 // block 10
	for name, try := range map[string]func() error{
		"past the end": func() error { return b.LoadPage(0, stray) },
		"merge":        func() error { _, err := b.MergePage(0, stray); return err },
		"short":        func() error { return b.LoadPage(0, stray[1:]) },
		"no page":      func() error { return b.LoadPage(1, make([]byte, PageBytes)) },
		"negative":     func() error { return b.LoadPage(-1, make([]byte, PageBytes)) },
	} {
		if err := try(); err == nil {
			t.Errorf("%s went through", name)
		}
	}
	if b.Count() != 0 {
		t.Error("a refused page left marks")
	}
	stray[1] = 1 << 1
	if err := b.LoadPage(0, stray); err != nil || b.Count() != 1 || b.Stale(0) {
		t.Fatalf("block 9 of 10: %v, count %d, stale %v", err, b.Count(), b.Stale(0))
	}
}

func TestExtremeRanges(t *testing.T) {
	b := New(10 * BlockBytes)
	const huge = 1<<63 - 1
	if n := b.Set(5*BlockBytes, huge); n != 5 {
		t.Errorf("Set to the end of everything changed %d", n)
	}
	if n := b.Set(huge, huge); n != 0 {
		t.Errorf("Set beyond the device changed %d", n)
	}
	if n := b.Clear(-BlockBytes, 7*BlockBytes); n != 1 {
		t.Errorf("Clear from before the device changed %d", n)
	}
	if n := b.Set(-huge, 5); n != 0 {
		t.Errorf("Set far before the device changed %d", n)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	b, page := New(1<<40), make([]byte, PageBytes)
	got := testing.AllocsPerRun(100, func() {
		b.Set(123<<20, 1<<20)
		b.NextRun(0, 1<<20)
		b.Any(123<<20, 4096)
		b.Page(1, page)
		b.Clear(123<<20, 1<<20)
		b.Saved(0, b.Version(0))
	})
	if got != 0 {
		t.Fatalf("%v allocations per round", got)
	}
}

func FuzzMergePage(f *testing.F) {
	f.Add(make([]byte, PageBytes), int64(100*BlockBytes))
	f.Add(bytes.Repeat([]byte{0xff}, PageBytes), int64(pageBits*BlockBytes))
	f.Add([]byte{1}, int64(512))
	f.Fuzz(func(t *testing.T, payload []byte, size int64) {
		if size < 1 || size > 2*pageBits*BlockBytes {
			return
		}
		b := New(size)
		changed, err := b.MergePage(0, payload)
		if err != nil {
			return
		}
		if b.Count() != changed || !bytes.Equal(b.Page(0, nil), payload) || b.DirtyBytes() > size {
			t.Fatal("what was merged is not what is marked")
		}
	})
}

func BenchmarkSetClear4K(bm *testing.B) {
	b := New(1 << 40)
	for i := range bm.N {
		off := int64(i*7919%(1<<28)) * BlockBytes
		b.Set(off, BlockBytes)
		b.Clear(off, BlockBytes)
	}
}

func BenchmarkNextRunClean16T(bm *testing.B) {
	b := New(16 << 40)
	b.Set(16<<40-BlockBytes, BlockBytes)
	for bm.Loop() {
		b.NextRun(BlockBytes, 1<<20)
	}
}
