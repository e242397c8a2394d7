package mirror

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"hapair/mirror/aside"
	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// loses has the image of a node become incomplete, as it does when it runs out of room.
func (n *pairNode) loses(t *testing.T) {
	t.Helper()
	must(t, n.image0(t).SetState(aside.State{Phase: aside.Incomplete, Why: "no room"}))
}

// incomplete wants an undo to be refused because of that, and nothing to be put back.
func (n *pairNode) incomplete(t *testing.T, now []byte) {
	t.Helper()
	if err := n.Undo(t.Context()); !errors.Is(err, ErrKept) {
		t.Fatalf("the image is incomplete, and was put back: %v", err)
	}
	if k := n.Kept(); k[0].Phase != aside.Incomplete {
		t.Fatalf("what the image lacks is forgotten: %+v", k)
	}
	if !bytes.Equal(n.image(t), now) {
		t.Fatal("a mixture was put back")
	}
}

// The peer writes until the session is over: an image that is lost while the ledger is
// asked is not put back, and the copy is worth what it was.
func TestAnImageIsLostWhileAnUndoLeavesTheSet(t *testing.T) {
	p, _ := apartPair(t)
	a := p.nodes[0]
	p.discard(0)
	must(t, p.nodes[1].door.do(t, &block.Request{Op: block.Flush}))
	now := a.image(t)
	p.ledger.mu.Lock()
	p.ledger.told = func(wire.Record) { a.loses(t) }
	p.ledger.mu.Unlock()
	a.incomplete(t, now)
	p.ledger.mu.Lock()
	p.ledger.told = nil
	p.ledger.mu.Unlock()
	if v := a.View(); v.Volumes[0].Disk != state.Outdated {
		t.Fatalf("nothing was put back, and the copy is %s", v.Volumes[0].Disk)
	}
	a.Connect()
	p.established()
}

// What was under way may lose it even later, until the engine begins: the copy is to be
// replaced then.
func TestAnImageIsLostWhileAnUndoBegins(t *testing.T) {
	p, _ := apartPair(t)
	a := p.nodes[0]
	p.discard(0)
	must(t, p.nodes[1].door.do(t, &block.Request{Op: block.Flush}))
	now := a.image(t)
	var once sync.Once
	before := func(r *block.Request) { // its superblock is about to say that it is worth nothing
		if r.Op.Changes() && a.View().Volumes[0].Disk == state.Inconsistent {
			once.Do(func() { a.loses(t) })
		}
	}
	a.md.before.Store(&before)
	a.incomplete(t, now)
	a.md.before.Store(nil)
	if v := a.View(); v.Volumes[0].Disk != state.Inconsistent {
		t.Fatalf("the copy is %s", v.Volumes[0].Disk)
	}
	a.Connect()
	p.established()
}
