package engine

import (
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// Both disks fail with a write that was answered early: who has it is not known, and the
// peer that comes back is not gone on with as if it had.
func TestBothDisksFailWithWhatWasAnsweredEarly(t *testing.T) {
	for _, p := range []state.Protocol{state.ProtocolA, state.ProtocolB} {
		for name, fails := range map[string]func(b *box){
			"in the session of the write": func(b *box) { b.refusedByADisk(); b.ledger() },
			"in the next one":             func(b *box) { b.ledger(); b.linkDown(); b.meets(p); b.refusedByADisk() },
		} {
			b := replicated(t, p)
			_, m := b.write(0, 7)
			b.localDone(nil)
			if p == state.ProtocolB {
				b.received(m)
			}
			b.wellAnswered()
			b.write(8192, 8)
			b.localDone(block.ErrIO)
			fails(b)
			for range 2 {
				b.linkDown()
				b.out = nil
				b.meets(p)
				b.receive(wire.Message{Kind: wire.Ack, ID: idForward})
				if got := b.eng.View().Replication; got == state.Forwarding {
					t.Errorf("%s, %s: goes on with a peer that may lack a write which was answered", p, name)
				}
			}
		}
	}
}

// meets is a greeting of the peer as the ledger has it.
func (b *box) meets(p state.Protocol) {
	b.greet(func(h *wire.HelloBody) { speaks(p)(h); h.Record = b.record })
}

func (b *box) refusedByADisk() {
	b.receive(wire.Message{Kind: wire.Refuse, Status: wire.IOError, Data: []byte("the disk of volume 0 of beta has failed")})
}
