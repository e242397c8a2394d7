package mirror

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hapair/mirror/aside"
	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// apartPair is a pair in a split brain, known to both: alpha, which is to give up, has
// what the returned image says, and beta is Primary with other data.
func apartPair(t *testing.T) (p *pair, alpha []byte) {
	t.Helper()
	p = newPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.established()
	p.promote(0)
	for i := range 64 {
		must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: int64(i) * 37 * 4096, Length: 8192, Data: fill(uint64(i), 8192)}))
	}
	p.cutWire(true)
	for i := range 32 {
		must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: int64(i)*41*4096 + 512, Length: 4096, Data: fill(uint64(100+i), 4096)}))
	}
	must(t, a.door.do(t, &block.Request{Op: block.Flush}))
	p.demote(0)
	alpha = a.image(t)
	rec, err := p.ledger.change(p.ledger.rec.Token, func(r *wire.Record) { r.InSync = []string{"beta"} })
	must(t, err)
	b.SetRecord(rec)
	p.force(1)
	for i := range 32 {
		must(t, b.door.do(t, &block.Request{Op: block.Write, Offset: int64(i) * 43 * 4096, Length: 4096, Data: fill(uint64(200+i), 4096)}))
	}
	p.cutWire(false)
	p.apart()
	return p, alpha
}

// force makes a node Primary whatever its copy is.
func (p *pair) force(i int) {
	p.t.Helper()
	rec, err := p.ledger.change(p.ledger.rec.Token, func(r *wire.Record) { r.Tenure, r.Primary = r.Token, p.nodes[i].name })
	must(p.t, err)
	p.nodes[i].SetRecord(rec)
	_, err = p.nodes[i].Promote(p.t.Context(), rec.Tenure, true)
	must(p.t, err)
	p.nodes[i].SetLease(rec.Tenure, p.clock()+1<<40)
}

func (p *pair) apart() {
	p.t.Helper()
	for _, n := range p.nodes {
		n.await(p.t, "apart", func(v View) bool { return v.SplitBrain && v.State == state.StandAlone })
	}
}

// image is what the disk of a node holds.
func (n *pairNode) image(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "disk"))
	must(t, err)
	return b
}

// discard has a node give up its side, and the two come in line.
func (p *pair) discard(i int) {
	p.t.Helper()
	n := p.nodes[i]
	must(p.t, n.DiscardData(p.t.Context(), DiscardOptions{}))
	for _, x := range p.nodes {
		x.Connect()
	}
	p.nodes[1-i].await(p.t, "in line", func(v View) bool { return established(v) && slices.Contains(v.Record.InSync, n.name) })
	p.established()
}

// shows wants what a node gave up to be as it was.
func (n *pairNode) shows(t *testing.T, was []byte) {
	t.Helper()
	must(t, n.ShowKept(t.Context()))
	got := block.Aligned(1 << 20)
	for off := 0; off < len(was); off += len(got) {
		must(t, n.kept.do(t, &block.Request{Op: block.Read, Offset: int64(off), Length: int64(len(got)), Data: got}))
		if !bytes.Equal(got, was[off:off+len(got)]) {
			t.Fatalf("what %s gave up is shown as it was not, after byte %d", n.name, off)
		}
	}
	must(t, n.HideKept(t.Context()))
}

// What differs is copied, not everything; what was given up is shown as it was while
// the other side goes on, and put back byte for byte.
func TestWhatIsGivenUpIsPutBack(t *testing.T) {
	p, was := apartPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.discard(0)
	if k := a.Kept(); len(k) != 1 || k[0].Phase != aside.Keeping || k[0].Blocks > 200 || k[0].Blocks < 64 {
		t.Fatalf("kept: %+v", k)
	}
	must(t, b.door.do(t, &block.Request{Op: block.Flush}))
	p.equal()
	a.shows(t, was)
	for i := range 16 {
		must(t, b.door.do(t, &block.Request{Op: block.Write, Offset: int64(i) * 47 * 4096, Length: 4096, Data: fill(uint64(300+i), 4096)}))
	}
	must(t, b.door.do(t, &block.Request{Op: block.Discard, Offset: 2 << 20, Length: 1 << 20}))
	a.shows(t, was)
	if err := a.DiscardData(t.Context(), DiscardOptions{}); !errors.Is(err, ErrKept) {
		t.Errorf("gave up twice: %v", err)
	}

	must(t, a.Undo(t.Context()))
	p.apart()
	if !bytes.Equal(a.image(t), was) {
		t.Fatal("put back, the disk is not what it was")
	}
	v := a.View()
	if k := a.Kept(); k[0].Phase != aside.Undone || slices.Contains(v.Record.InSync, "alpha") || v.Volumes[0].Disk != state.Outdated {
		t.Fatalf("%+v %+v", k, v.View)
	}
	if err := a.Undo(t.Context()); !errors.Is(err, ErrKept) {
		t.Errorf("put back twice: %v", err)
	}

	// The other way: alpha is kept, and what differs is found although beta has no marks of it.
	p.demote(1)
	must(t, b.DiscardData(t.Context(), DiscardOptions{}))
	rec, err := p.ledger.change(p.ledger.rec.Token, func(r *wire.Record) { r.InSync = []string{"alpha"} })
	must(t, err)
	for _, n := range p.nodes {
		n.SetRecord(rec)
	}
	p.force(0)
	for _, x := range p.nodes {
		x.Connect()
	}
	a.await(t, "in line", func(v View) bool { return established(v) && slices.Contains(v.Record.InSync, "beta") })
	must(t, a.door.do(t, &block.Request{Op: block.Flush}))
	p.equal()
	if !bytes.Equal(a.image(t), was) {
		t.Fatal("the copy that was kept has changed")
	}
	for _, n := range p.nodes {
		must(t, n.DropKept(t.Context()))
		if left, err := os.ReadDir(filepath.Join(n.dir, "split-brain", "r")); err != nil || len(left) > 0 || len(n.Kept()) > 0 {
			t.Errorf("dropped, and there is %v, %v", left, err)
		}
	}
}

// An undo that ends half way leaves a copy that is worth nothing, and the next life of
// the agent goes on with it before it meets anybody.
func TestAnUndoIsTakenUpAgain(t *testing.T) {
	p, was := apartPair(t)
	a := p.nodes[0]
	p.discard(0)
	a.disk.failWrites(20)
	err := a.Undo(t.Context())
	if err == nil {
		t.Fatal("the disk failed, and everything was put back")
	}
	if v := a.View(); v.Volumes[0].Disk.CanServe() || slices.Contains(v.Record.InSync, "alpha") || a.Kept()[0].Phase != aside.Undoing {
		t.Fatalf("half put back: %+v, %+v", v.Volumes[0], a.Kept())
	}
	if bytes.Equal(a.image(t), was) {
		t.Fatal("nothing was missing: the test is none")
	}
	must(t, a.Close(context.Background()))
	p.open(0)
	p.nodes[1].Connect()
	a.Start()
	p.apart()
	if !bytes.Equal(a.image(t), was) || a.Kept()[0].Phase != aside.Undone {
		t.Fatalf("taken up again, the disk is not what it was: %+v", a.Kept())
	}
}

// What cannot be kept is not given up, unless somebody says so.
func TestNoRoomToKeep(t *testing.T) {
	p, was := apartPair(t)
	a := p.nodes[0]
	a.cfg.Aside.Bytes = 8192
	err := a.DiscardData(t.Context(), DiscardOptions{})
	if !errors.Is(err, aside.ErrNoRoom) || len(a.Kept()) > 0 || !strings.Contains(err.Error(), "may take 8192") {
		t.Fatal(err)
	}
	for _, x := range p.nodes {
		x.Connect()
	}
	p.apart()
	if !bytes.Equal(a.image(t), was) {
		t.Fatal("nothing was given up, and the disk has changed")
	}
	must(t, a.DiscardData(t.Context(), DiscardOptions{WithoutImage: true}))
	for _, x := range p.nodes {
		x.Connect()
	}
	p.established()
	if err := a.Undo(t.Context()); !errors.Is(err, aside.ErrNone) {
		t.Fatalf("nothing was kept: %v", err)
	}
}
