package mirror

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
)

// full makes the disk of a node's metadata one that has no room for what is
// written to it, as a file on a full file system, until has says otherwise.
func (n *pairNode) full(on bool) {
	n.mdFull = on
	n.md.full(on)
}

func (d *sickDisk) full(on bool) {
	d.why = fmt.Errorf("write %s: %w", d.path, block.ErrNoSpace)
	d.writes.Store(on)
}

// The metadata of the Primary have no room any more: no write is answered whose
// mark is not on disk, and the application notices nothing, for the peer goes on.
func TestFullMetadataOfThePrimary(t *testing.T) {
	p := newPair(t)
	a := p.nodes[0]
	p.established()
	p.promote(0)
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)}))
	a.full(true)
	must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: 8 << 20, Length: 4096, Data: fill(2, 4096)})) // a cold extent
	a.await(t, "forwarding", func(v View) bool {
		return v.Replication == state.Forwarding && slices.Equal(v.Record.InSync, []string{"beta"})
	})
	if troubles, _ := a.obs.told(); !slices.ContainsFunc(troubles, func(s string) bool {
		return strings.Contains(s, "/md") && strings.Contains(s, block.ErrNoSpace.Error())
	}) {
		t.Errorf("alpha tells %q, and not which disk is full", troubles)
	}
	if err := a.Attach(t.Context(), AttachOptions{}); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("attached while it is full: %v", err)
	}
	a.full(false)
	must(t, a.Attach(t.Context(), AttachOptions{}))
	a.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
	p.equal()
}

// Those of the Secondary: it leaves, and comes back when there is room again.
func TestFullMetadataOfTheSecondary(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.established()
	p.promote(0)
	b.full(true)
	p.cutWire(true) // what it writes down next is that it is a target
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)}))
	p.cutWire(false)
	b.await(t, "failed", func(v View) bool { return v.Volumes[0].Disk == state.Failed })
	must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: 4096, Length: 4096, Data: fill(2, 4096)}))
	b.full(false)
	must(t, b.Attach(t.Context(), AttachOptions{}))
	b.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
	p.equal()
}
