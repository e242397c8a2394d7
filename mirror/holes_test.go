package mirror

import (
	"sync/atomic"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
)

// noHoles is a disk on which a hole frees nothing while that is set.
type noHoles struct {
	block.Disk
	set *atomic.Bool
}

func (d noHoles) Geometry() block.Geometry {
	g := d.Disk.Geometry()
	g.Discard = g.Discard && !d.set.Load()
	return g
}

func (d noHoles) Unplug() { unplug(d.Disk) }

// A volume takes holes where its disk frees something by them, and only there: elsewhere a
// mkfs would write the whole of it, on both nodes. Another disk may change that.
func TestHolesAreTheDisks(t *testing.T) {
	var none atomic.Bool
	none.Store(true)
	p := layered(t, "disk", func(n *pairNode, d block.Disk) block.Disk {
		if n.name == "alpha" {
			return noHoles{d, &none}
		}
		return d
	})
	a := p.nodes[0]
	if a.door.geometry().Discard {
		t.Error("the device takes holes, and the disk frees nothing by them")
	}
	for _, holes := range []bool{true, false} {
		a.disk.writes.Store(true)
		must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)}))
		a.await(t, "forwarding", func(v View) bool { return v.Replication == state.Forwarding })
		none.Store(!holes)
		must(t, a.attachWhenItMay(t))
		if g := a.door.geometry(); g.Discard != holes || g.SizeBytes != pairSize {
			t.Errorf("with another disk: holes %t, want %t; %d bytes", g.Discard, holes, g.SizeBytes)
		}
		a.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
	}
	p.demote(0)
	p.promote(1)
	if !p.nodes[1].door.geometry().Discard {
		t.Error("the device of the peer takes no holes, and its disk would free something")
	}
}
