package mirror

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// By protocols A and B, over a real link, the disk of the peer slow, with an
// application that uses its memory again as soon as it is answered: both copies have what was
// written, also when the session breaks in between, and after a demotion.
func TestAnsweredEarly(t *testing.T) {
	for _, protocol := range []state.Protocol{state.ProtocolA, state.ProtocolB} {
		t.Run(protocol.String(), func(t *testing.T) {
			var by atomic.Int64
			p := layered(t, "disk", func(n *pairNode, d block.Disk) block.Disk {
				if n.name == "beta" {
					return &slowDisk{Disk: d, by: &by}
				}
				return d
			})
			by.Store(int64(10 * time.Millisecond))
			a := p.nodes[0]
			for _, n := range p.nodes {
				n.Configure(Settings{Settings: engine.Settings{Protocol: protocol, CongestionFill: 64 << 10}})
			}
			a.await(t, protocol.String(), func(v View) bool { return v.Protocol == protocol })
			memory := block.Aligned(8192)
			for i := range 300 {
				copy(memory, fill(uint64(i), 8192))
				must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: int64(i) * 37 * 4096 % (8 << 20), Length: 8192, Data: memory}))
				clear(memory)
				switch i {
				case 150:
					p.cutWire(true)
				case 200:
					p.cutWire(false)
				}
			}
			p.established()
			by.Store(int64(time.Second))
			must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 8192, Data: fill(300, 8192)}))
			p.demote(0) // at once: it is not on the peer's disk yet
			p.equal()
			p.promote(1)
			got := block.Aligned(8192)
			must(t, p.nodes[1].door.do(t, &block.Request{Op: block.Read, Offset: 299 * 37 * 4096 % (8 << 20), Length: 8192, Data: got}))
			if !bytes.Equal(got, fill(299, 8192)) {
				t.Fatal("the new Primary reads something else than was written")
			}
		})
	}
}
