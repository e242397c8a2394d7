package meta

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/test/fault"
)

func TestTornSuperblockLosesOnlyItself(t *testing.T) {
	for torn := range 2 {
		d := external(t)
		st, snap := reopened(t, d)
		n := 0
		for token := uint64(1); token <= uint64(2+torn); token++ {
			snap.Super.Token = token
			st.WriteSuper(snap.Super, must(t, &n))
		}
		last := st.mu.sequence
		d.data[int64(last%2)*BlockBytes+500] ^= 0x80
		st, after := reopened(t, d)
		if after.Super.Token != uint64(1+torn) || len(after.Repairs) != 1 {
			t.Fatalf("token %d, repairs %v", after.Super.Token, after.Repairs)
		}
		st.WriteSuper(after.Super, must(t, &n)) // goes over the torn one
		if _, again := reopened(t, d); len(again.Repairs) != 0 || again.Super.Sequence != last {
			t.Fatalf("sequence %d, repairs %v", again.Super.Sequence, again.Repairs)
		}
	}
}

func TestFailedSuperblockWriteSparesTheGoodOne(t *testing.T) {
	d := external(t)
	st, snap := reopened(t, d)
	var places []int64
	d.fail = func(r *block.Request) error {
		if r.Op == block.Write {
			places = append(places, r.Offset)
			clear(d.data[r.Offset : r.Offset+512])
			return errTest
		}
		return nil
	}
	for range 3 {
		st.WriteSuper(snap.Super, func(err error) {
			if !errors.Is(err, errTest) {
				t.Errorf("a failed write was answered with %v", err)
			}
		})
	}
	d.fail = nil
	if _, after := reopened(t, d); after.Super != snap.Super || !slices.Equal(places, []int64{4096, 4096, 4096}) {
		t.Fatalf("places %v, %+v", places, after.Super)
	}
}

func TestDamagedPageCountsAsOutOfSync(t *testing.T) {
	d := external(t)
	_, snap := reopened(t, d)
	for i := range 2 {
		d.data[snap.Layout.BitmapOffset+int64(2*i)*BlockBytes+77] ^= 1
	}
	_, snap = reopened(t, d)
	const span = dirty.PageExtents * dirty.ExtentBytes
	if snap.Bitmap.DirtyBytes() != testData-span || snap.Bitmap.Any(span, span) || !snap.Bitmap.Unsaved(0) || len(snap.Repairs) != 2 {
		t.Fatalf("%d bytes out of sync, %v", snap.Bitmap.DirtyBytes(), snap.Repairs)
	}
}

func fillRing(t *testing.T, d *memDisk, n int) Layout {
	st, snap := reopened(t, d)
	done := 0
	for e := range n {
		snap.Log.Acquire(int64(e)*actlog.ExtentBytes, 4096)
		tx, _, _ := snap.Log.Prepare(0, func(uint32) bool { return true })
		st.WriteActivity(tx, must(t, &done))
		snap.Log.Commit(tx)
	}
	if done != n {
		t.Fatalf("%d of %d transactions were written", done, n)
	}
	return snap.Layout
}

func TestTornTransaction(t *testing.T) {
	d := external(t)
	l := fillRing(t, d, 7)
	d.data[l.RingOffset+7%int64(l.RingBlocks)*BlockBytes+1000] ^= 1
	_, snap := reopened(t, d)
	if !slices.Equal(snap.HotExtents, []uint32{0, 1, 2, 3, 4, 5}) || len(snap.Repairs) != 1 || snap.Bitmap.Count() != 0 {
		t.Fatalf("hot %v, repairs %v", snap.HotExtents, snap.Repairs)
	}
}

// A young log begins with transaction 1 and is complete; but two blocks that
// cannot be read may have held younger ones.
func TestTwoDamagedBlocksOfAYoungRing(t *testing.T) {
	d := external(t)
	l := fillRing(t, d, 3)
	d.data[l.RingOffset+2*BlockBytes+1000] ^= 1
	d.data[l.RingOffset+1000] ^= 1
	_, snap := reopened(t, d)
	if snap.Bitmap.DirtyBytes() != testData || len(snap.HotExtents) != 0 || len(snap.Repairs) != 1 {
		t.Fatalf("%d bytes out of sync, hot %v, repairs %v", snap.Bitmap.DirtyBytes(), snap.HotExtents, snap.Repairs)
	}
}

// More damage than one crash can do: the volume stays usable, everything counts
// as out of sync, and a power cut while that is written down changes nothing,
// whatever part of the volatile cache reached the disk.
func TestLostActivityLog(t *testing.T) {
	for seed := range uint64(12) {
		for n := 0; ; n++ {
			d := external(t)
			l := fillRing(t, d, 7)
			d.data[l.RingOffset+6%int64(l.RingBlocks)*BlockBytes+1000] ^= 1
			cache := fault.NewCache(d, fault.CacheOptions{Seed: seed, Early: 0.5})
			bad := fault.New(cache)
			writes := bad.Add(fault.Rule{Ops: []block.Op{block.Write, block.Flush}, Skip: n, Err: errTest})
			_, _, err := Open(bad, External, Identity{})
			if err != nil && !errors.Is(err, errTest) {
				t.Fatalf("write %d: %v", n, err)
			}
			finished := bad.Seen(writes) <= n
			cache.Drop()
			if err := bad.Close(); err != nil {
				t.Fatal(err)
			}
			_, snap := reopened(t, d)
			if snap.Bitmap.DirtyBytes() != testData || snap.Super.Flags != Clean || len(snap.HotExtents) != 0 || snap.Bitmap.Stale(0) {
				t.Fatalf("seed %d, write %d: %d bytes out of sync, %+v", seed, n, snap.Bitmap.DirtyBytes(), snap.Super)
			}
			if finished {
				if len(snap.Repairs) != 0 || n < 5 {
					t.Fatalf("after %d writes: %v", n, snap.Repairs)
				}
				break
			}
		}
	}
}

func TestWritesOfOnePlaceKeepTheirOrder(t *testing.T) {
	d := external(t)
	st, snap := reopened(t, d)
	d.hold = true
	var order []int
	note := func(n int) func(error) { return func(error) { order = append(order, n) } }
	payload := make([]byte, dirty.PageBytes)
	for n := range 3 {
		payload[0] = byte(1 << n)
		st.WriteBitmapPages(0, payload, note(n))
		snap.Super.Token = uint64(n)
		st.WriteSuper(snap.Super, note(10+n))
	}
	st.WriteBitmapPages(1, payload, note(20))
	if len(d.held) != 2 { // of the bitmap, and a superblock
		t.Fatalf("%d writes at once", len(d.held))
	}
	for len(d.held) > 0 {
		d.release(nil)
	}
	if !slices.Equal(order, []int{0, 10, 1, 11, 2, 12, 20}) {
		t.Fatalf("answered in the order %v", order)
	}
	d.hold = false
	if _, after := reopened(t, d); !after.Bitmap.Any(8192, 4096) || after.Bitmap.Count() != 2 || after.Super.Token != 2 {
		t.Fatalf("%d dirty, token %d", after.Bitmap.Count(), after.Super.Token)
	}
}

// Pages are written together; wherever that is cut off, each is the one before or the
// one after, or says that all of it is out of sync.
func TestPagesAreCutOff(t *testing.T) {
	const span = dirty.PageExtents * actlog.ExtentBytes
	d := external(t)
	st, before := reopened(t, d)
	_, after := reopened(t, d)
	var payload []byte
	for page := range int64(after.Bitmap.Pages()) {
		after.Bitmap.Set(page*span, 4096)
		after.Bitmap.Set(min((page+1)*span, testData)-4096, 4096)
		payload = append(payload, after.Bitmap.Page(int(page), nil)...)
	}
	all := dirty.New(testData)
	all.SetAll()
	d.hold = true
	st.WriteBitmapPages(0, payload, func(error) {})
	r := d.held[0]
	if len(d.held) != 1 || r.Length != int64(after.Bitmap.Pages())*BlockBytes || r.Flags != block.FUA {
		t.Fatalf("%d writes, %s", len(d.held), r)
	}
	for cut := int64(0); cut <= r.Length; cut += block.SectorBytes {
		disk := &memDisk{data: slices.Clone(d.data)}
		copy(disk.data[r.Offset:], r.Data[:cut])
		_, found := reopened(t, disk)
		for page := range found.Bitmap.Pages() {
			want := all
			switch has := cut - int64(page)*BlockBytes; {
			case has <= 0:
				want = before.Bitmap
			case has >= BlockBytes:
				want = after.Bitmap
			}
			if !bytes.Equal(found.Bitmap.Page(page, nil), want.Page(page, nil)) {
				t.Fatalf("cut off after %d bytes: page %d is another", cut, page)
			}
		}
	}
}

func TestStoreRefusals(t *testing.T) {
	st, snap := reopened(t, external(t))
	bad := 0
	refused := func(err error) {
		if err != nil {
			bad++
		}
	}
	snap.Super.DataBytes -= 512
	st.WriteSuper(snap.Super, refused)
	snap.Super.DataBytes += 512
	snap.Super.Peer = strings.Repeat("x", 64)
	st.WriteSuper(snap.Super, refused)
	st.WriteBitmapPages(3, make([]byte, dirty.PageBytes), refused)
	st.WriteBitmapPages(-1, make([]byte, dirty.PageBytes), refused)
	st.WriteBitmapPages(0, make([]byte, 5), refused)
	st.WriteBitmapPages(0, nil, refused)
	st.WriteBitmapPages(1, make([]byte, 3*dirty.PageBytes), refused)
	st.WriteBitmapPages(0, make([]byte, (block.MaxTransferBytes/BlockBytes+1)*dirty.PageBytes), refused)
	st.WriteActivity(actlog.Transaction{Number: 1, Updates: make([]actlog.Update, 65)}, refused)
	if bad != 9 {
		t.Fatalf("%d of 9 were refused", bad)
	}
	n := 0
	snap.Super.Peer = "gamma"
	st.WriteSuper(snap.Super, must(t, &n))
	if n != 1 {
		t.Fatal("the lane is stuck after a refusal")
	}
}
