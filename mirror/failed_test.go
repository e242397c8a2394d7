package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/state"
)

// sickDisk fails what it is told to fail.
type sickDisk struct {
	block.Disk
	path          string
	why           error // nil is block.ErrIO
	writes, reads atomic.Bool
	left          atomic.Int64                         // so many writes go well, then none: 0 for no end
	before        atomic.Pointer[func(*block.Request)] // looks at every request first
}

func (d *sickDisk) Submit(r *block.Request) {
	if before := d.before.Load(); before != nil {
		(*before)(r)
	}
	if r.Op == block.Read && d.reads.Load() || r.Op != block.Read && d.writes.Load() {
		r.Answer(fmt.Errorf("backing disk %s: %s: %w", d.path, r, cmp.Or(d.why, block.ErrIO)))
		return
	}
	if r.Op == block.Write && d.left.Load() > 0 && d.left.Add(-1) == 0 {
		d.writes.Store(true)
	}
	d.Disk.Submit(r)
}

// failWrites has the disk fail after so many writes.
func (d *sickDisk) failWrites(after int64) { d.left.Store(after) }

func (d *sickDisk) Unplug() { unplug(d.Disk) }

// unplug passes an Unplug on to the disk below a layer.
func unplug(d block.Disk) {
	if u, ok := d.(block.Unplugger); ok {
		u.Unplug()
	}
}

// A disk that fails on the Secondary: both sides say which, neither tries again
// by itself, and the Primary goes on alone.
func TestFailedDiskOfTheSecondary(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.established()
	p.promote(0)
	b.disk.writes.Store(true)
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)}))
	b.await(t, "StandAlone", func(v View) bool { return v.State == state.StandAlone && v.Volumes[0].Disk == state.Failed })
	a.await(t, "alone", func(v View) bool { return !v.Connected && !slices.Contains(v.Record.InSync, "beta") })
	time.Sleep(300 * time.Millisecond) // whoever tries again does so by now
	for _, n := range p.nodes {
		v := n.View()
		if v.Reason == nil || !errors.Is(v.Reason, block.ErrIO) || !strings.Contains(v.Reason.Error(), b.disk.path) {
			t.Errorf("%s says: %v", n.name, v.Reason)
		}
		troubles, linked := n.obs.told()
		if linked != 1 || len(troubles) == 0 || len(troubles) > 2 || !strings.Contains(troubles[0], b.disk.path) {
			t.Errorf("%s had %d sessions and reports %q", n.name, linked, troubles)
		}
	}
	if got := a.View().State; got != state.Connecting {
		t.Errorf("alpha is %s: it would not meet beta again by itself", got)
	}
	b.disk.writes.Store(false)
}
