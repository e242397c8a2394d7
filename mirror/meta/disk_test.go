package meta

import (
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"hapair/mirror/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memDisk is a disk in memory that completes inline, unless hold keeps writes.
type memDisk struct {
	mu   sync.Mutex
	data []byte
	fail func(r *block.Request) error
	hold bool
	held []*block.Request
}

func newMemDisk(size int64) *memDisk { return &memDisk{data: make([]byte, size)} }

// failAfter lets n writes and flushes succeed.
func (d *memDisk) failAfter(n int) {
	d.fail = func(r *block.Request) error {
		if r.Op.Changes() || r.Op == block.Flush {
			if n--; n < 0 {
				return errTest
			}
		}
		return nil
	}
}

func (d *memDisk) Geometry() block.Geometry {
	return block.Geometry{
		SizeBytes: int64(len(d.data)), LogicalBlockBytes: 512, PhysicalBlockBytes: 4096,
		MaxTransferBytes: block.MaxTransferBytes, VolatileCache: true,
	}
}

func (d *memDisk) Close() error { return nil }

func (d *memDisk) Submit(r *block.Request) {
	d.mu.Lock()
	if d.hold && r.Op == block.Write {
		d.held = append(d.held, r)
		d.mu.Unlock()
		return
	}
	err := d.carryOut(r)
	d.mu.Unlock()
	r.Answer(err)
}

// release completes the oldest held write with err.
func (d *memDisk) release(err error) {
	d.mu.Lock()
	r := d.held[0]
	d.held = d.held[1:]
	if err == nil {
		err = d.carryOut(r)
	}
	d.mu.Unlock()
	r.Answer(err)
}

func (d *memDisk) carryOut(r *block.Request) error {
	if err := block.Check(r, d.Geometry()); err != nil {
		return err
	}
	if d.fail != nil {
		if err := d.fail(r); err != nil {
			return err
		}
	}
	switch r.Op {
	case block.Read:
		copy(r.Data, d.data[r.Offset:])
	case block.Write:
		copy(d.data[r.Offset:], r.Data)
	case block.WriteZeroes:
		clear(d.data[r.Offset:r.End()])
	}
	return nil
}

const (
	testSlots = 1000
	testData  = 3*31*4<<20 - 512 // three bitmap pages, the last block cut
)

func params() CreateParams {
	return CreateParams{
		Placement: External, DataBytes: testData, ActivitySlots: testSlots,
		Cluster: "c1", Resource: "r0", Volume: 3, Node: "alpha", Peer: "beta",
		Device: UUID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
	}
}

func created(t *testing.T, p CreateParams, size int64) *memDisk {
	t.Helper()
	d := newMemDisk(size)
	if _, err := Create(d, p); err != nil {
		t.Fatal(err)
	}
	return d
}

func external(t *testing.T) *memDisk { return created(t, params(), NeededFor(testData, testSlots)) }

func reopened(t *testing.T, d *memDisk) (*Store, Snapshot) {
	t.Helper()
	s, snap, err := Open(d, External, Identity{Resource: "r0", Volume: 3, Node: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	return s, snap
}

// must returns a done that wants success, and counts.
func must(t *testing.T, n *int) func(error) {
	return func(err error) {
		if err != nil {
			t.Error(err)
		}
		*n++
	}
}

var errTest = errors.New("injected")
