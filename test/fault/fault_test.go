package fault

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"hapair/mirror/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a disk without faults, and counts.
type memory struct {
	data    []byte
	flushes int
	closed  bool
}

func (m *memory) Geometry() block.Geometry {
	return block.Geometry{SizeBytes: int64(len(m.data)), LogicalBlockBytes: 512, PhysicalBlockBytes: 512, MaxTransferBytes: block.MaxTransferBytes}
}

func (m *memory) Close() error { m.closed = true; return nil }

func (m *memory) Submit(r *block.Request) {
	err := block.Check(r, m.Geometry())
	switch {
	case err != nil:
	case r.Op == block.Read:
		copy(r.Data, m.data[r.Offset:])
	case r.Op == block.Write:
		copy(m.data[r.Offset:], r.Data)
	case r.Op == block.Flush:
		m.flushes++
	default:
		clear(m.data[r.Offset:r.End()])
	}
	r.Answer(err)
}

func do(d block.Disk, op block.Op, flags block.Flags, off int64, data []byte) error {
	done := make(chan error, 1)
	r := &block.Request{Op: op, Flags: flags, Offset: off, Length: int64(len(data)), Data: data,
		Done: func(_ *block.Request, err error) { done <- err }}
	if op != block.Read && op != block.Write {
		r.Data = nil
	}
	d.Submit(r)
	return <-done
}

var errTest = errors.New("injected")

func TestErrors(t *testing.T) {
	m := &memory{data: make([]byte, 64<<10)}
	d := New(m)
	data := bytes.Repeat([]byte{1}, 4096)
	id := d.Add(Rule{Ops: []block.Op{block.Write, block.Flush}, Offset: 8192, Length: 4096, Skip: 1, Count: 2, Err: errTest})
	for n, c := range []struct {
		op   block.Op
		off  int64
		want error
	}{
		{block.Write, 0, nil},        // outside
		{block.Write, 12288, nil},    // just behind
		{block.Read, 8192, nil},      // another operation
		{block.Write, 8192, nil},     // skipped
		{block.Write, 8192, errTest}, // first
		{block.Flush, 0, errTest},    // second
		{block.Write, 8192, nil},     // spent
	} {
		buf := data
		if c.op == block.Flush {
			buf = nil
		}
		if err := do(d, c.op, 0, c.off, buf); !errors.Is(err, c.want) {
			t.Errorf("request %d: %v, want %v", n, err, c.want)
		}
	}
	if d.Seen(id) != 4 {
		t.Errorf("the rule picked %d requests", d.Seen(id))
	}
	d.Remove(id)
	if d.Seen(id) != 0 || do(d, block.Write, 0, 8192, data) != nil {
		t.Error("a removed rule acts")
	}
	if err := d.Close(); err != nil || !m.closed {
		t.Fatal(err)
	}
}

func TestTornAndLate(t *testing.T) {
	m := &memory{data: make([]byte, 64<<10)}
	d := New(m)
	data := bytes.Repeat([]byte{9}, 4096)
	d.Add(Rule{Offset: 0, Length: 4096, Err: errTest, Torn: true})
	d.Add(Rule{Offset: 4096, Length: 4096, Err: errTest, Late: true})
	d.Add(Rule{Offset: 8192, Length: 4096, Err: errTest})
	for off := int64(0); off < 12288; off += 4096 {
		if err := do(d, block.Write, 0, off, data); !errors.Is(err, errTest) {
			t.Errorf("at %d: %v", off, err)
		}
	}
	want := append(append(bytes.Repeat([]byte{9}, 2048), make([]byte, 2048)...), data...)
	if !bytes.Equal(m.data[:8192], want) || !bytes.Equal(m.data[8192:12288], make([]byte, 4096)) {
		t.Fatal("the disk holds something else")
	}
}

func TestHangAndDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{data: make([]byte, 64<<10)}
		d := New(m)
		d.Add(Rule{Ops: []block.Op{block.Flush}, Hang: true})
		d.Add(Rule{Ops: []block.Op{block.Write}, Delay: time.Second})
		start := time.Now()
		if err := do(d, block.Write, 0, 0, make([]byte, 512)); err != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		answered := make(chan error, 2)
		for range 2 {
			go func() { answered <- do(d, block.Flush, 0, 0, nil) }()
		}
		synctest.Wait()
		if d.Hung() != 2 || len(answered) != 0 {
			t.Fatalf("%d hang, %d were answered", d.Hung(), len(answered))
		}
		d.Release()
		for range 2 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
		go func() { answered <- do(d, block.Flush, 0, 0, nil) }()
		synctest.Wait()
		if err := errors.Join(d.Close(), <-answered); err != nil || m.flushes != 3 {
			t.Fatalf("%v, %d flushes", err, m.flushes)
		}
	})
}

func TestParseRule(t *testing.T) {
	u, err := ParseRule(" write,flush offset=4096 length=8192 skip=2 count=1 err=io torn delay=20ms")
	if err != nil || len(u.Ops) != 2 || u.Ops[1] != block.Flush || u.Offset != 4096 || u.Length != 8192 ||
		u.Skip != 2 || u.Count != 1 || !errors.Is(u.Err, block.ErrIO) || !u.Torn || u.Delay != 20*time.Millisecond || u.Hang {
		t.Fatalf("%+v, %v", u, err)
	}
	for _, text := range []string{"", "write", "torn hang", "err=eio", "offset=-1 hang", "rite hang", "delay=0s", "delay=1", "skip=x hang", "write,,flush hang", "count=4294967296 hang"} {
		if u, err := ParseRule(text); err == nil {
			t.Errorf("%q was read as %+v", text, u)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add("write,flush offset=4096 length=8192 skip=2 count=1 err=io torn")
	f.Add("hang")
	f.Add("read delay=20ms err=nospace late")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseRule(text)
		if err == nil && (u.Offset < 0 || u.Length < 0 || u.Skip < 0 || u.Count < 0 || u.Delay < 0) {
			t.Fatalf("%q was read as %+v", text, u)
		}
	})
}

// Every sector the disk has after a power cut is one that was written since the
// last flush, or what the flush left; an FUA write survives; reads see all.
func TestCacheAgainstModel(t *testing.T) {
	const size = 10 * Granule
	rapid.Check(t, func(t *rapid.T) {
		m := &memory{data: make([]byte, size)}
		c := NewCache(m, CacheOptions{
			Seed: rapid.Uint64().Draw(t, "seed"), Early: rapid.SampledFrom([]float64{0, 0.3, 1}).Draw(t, "early"),
			LimitBytes: rapid.SampledFrom([]int64{Granule, 4 * Granule, 0}).Draw(t, "limit"),
		})
		now := make([]byte, size)                   // what a read must see
		possible := make([]map[byte]bool, size/512) // what each sector may hold after a cut
		for i := range possible {
			possible[i] = map[byte]bool{0: true}
		}
		settle := func(off, end int64) {
			for s := off / 512; s < end/512; s++ {
				possible[s] = map[byte]bool{now[s*512]: true}
			}
		}
		sectors := func(t *rapid.T) (int64, int64) {
			off := rapid.Int64Range(0, size/512-1).Draw(t, "off")
			return off * 512, rapid.Int64Range(1, min(24, size/512-off)).Draw(t, "n") * 512
		}
		want := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		stamp := byte(0)
		put := func(t *rapid.T, op block.Op, flags block.Flags) {
			off, n := sectors(t)
			stamp++
			data := bytes.Repeat([]byte{stamp}, int(n))
			if op == block.WriteZeroes {
				clear(data)
			}
			want(do(c, op, flags, off, data))
			copy(now[off:], data)
			for s := off / 512; s < (off+n)/512; s++ {
				possible[s][data[0]] = true
			}
			if flags&block.FUA != 0 {
				settle(off, off+n)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write":  func(t *rapid.T) { put(t, block.Write, 0) },
			"fua":    func(t *rapid.T) { put(t, block.Write, block.FUA) },
			"zeroes": func(t *rapid.T) { put(t, block.WriteZeroes, 0) },
			"discard": func(t *rapid.T) { // this disk zeroes what is discarded
				off, n := sectors(t)
				want(do(c, block.Discard, 0, off, make([]byte, n)))
				clear(now[off : off+n])
				settle(off, off+n)
			},
			"flush": func(t *rapid.T) {
				before := m.flushes
				want(do(c, block.Flush, 0, 0, nil))
				settle(0, size)
				if c.Held() != 0 || m.flushes != before+1 {
					t.Fatalf("%d bytes are held after a flush, the disk was flushed %d times", c.Held(), m.flushes-before)
				}
			},
			"read": func(t *rapid.T) {
				off, n := sectors(t)
				got := make([]byte, n)
				want(do(c, block.Read, 0, off, got))
				if !bytes.Equal(got, now[off:off+n]) {
					t.Fatalf("read(%d, %d) does not see what was written", off, n)
				}
			},
			"cut": func(t *rapid.T) {
				c.Drop()
				copy(now, m.data)
				settle(0, size)
			},
			"": func(t *rapid.T) {
				for s := range possible {
					sector := m.data[s*512 : (s+1)*512]
					if !possible[s][sector[0]] || bytes.Count(sector, sector[:1]) != 512 {
						t.Fatalf("sector %d holds %d, possible are %v", s, sector[0], possible[s])
					}
				}
			},
		})
		want(c.Close())
	})
}

func TestCacheLosesAndKeeps(t *testing.T) {
	lost := func(early float64) int64 {
		c := NewCache(&memory{data: make([]byte, 1<<20)}, CacheOptions{Seed: 7, Early: early})
		for off := int64(0); off < 1<<20; off += Granule {
			if err := do(c, block.Write, 0, off, bytes.Repeat([]byte{1}, Granule)); err != nil {
				t.Fatal(err)
			}
		}
		n := c.Drop()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if all, some, none := lost(0), lost(0.5), lost(1); all != 1<<20 || none != 0 || some < 1<<18 || some > 3<<18 || some != lost(0.5) {
		t.Fatalf("lost %d, %d, %d", all, some, none)
	}
}

func TestCacheIsBounded(t *testing.T) {
	m := &memory{data: make([]byte, 1<<20)}
	c := NewCache(m, CacheOptions{LimitBytes: 8 * Granule})
	for off := int64(0); off < 1<<20; off += 64 << 10 {
		if err := do(c, block.Write, 0, off, make([]byte, 64<<10)); err != nil || c.Held() > 8*Granule {
			t.Fatalf("%v, %d bytes are held", err, c.Held())
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := do(c, block.Flush, 0, 0, nil); !errors.Is(err, block.ErrClosed) {
		t.Fatalf("a closed cache: %v", err)
	}
}

// A disk that fails keeps the data held, and the flush fails.
func TestCacheOnAFailingDisk(t *testing.T) {
	bad := New(&memory{data: make([]byte, 1<<20)})
	c := NewCache(bad, CacheOptions{})
	if err := do(c, block.Write, 0, 0, make([]byte, Granule)); err != nil {
		t.Fatal(err)
	}
	bad.Add(Rule{Ops: []block.Op{block.Write}, Count: 1, Err: errTest})
	if err := do(c, block.Flush, 0, 0, nil); !errors.Is(err, errTest) || c.Held() != Granule {
		t.Fatalf("%v, %d bytes are held", err, c.Held())
	}
	if err := errors.Join(do(c, block.Flush, 0, 0, nil), c.Close()); err != nil {
		t.Fatal(err)
	}
}
