package mirror

import (
	"context"
	"testing"
	"time"

	"hapair/mirror/block"
)

// A probe is answered where a write would be, and nowhere else; it leaves the data
// as they are.
func TestProbe(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.established()
	p.promote(0)
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)}))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, a.Probe(ctx))
	if err := b.Probe(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("a Secondary answers a probe: %v", err)
	}
	p.cutWire(true)
	must(t, a.Probe(ctx)) // when the ledger has taken the peer out
	if v := a.View(); len(v.Record.InSync) != 1 {
		t.Errorf("answered without the peer, which is in sync: %+v", v.Record)
	}
	p.cutWire(false)
	a.await(t, "in sync again", established)
	b.await(t, "in sync again", established)
	p.equal()
}
