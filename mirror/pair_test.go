package mirror

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/front"
	"hapair/mirror/link"
	"hapair/mirror/meta"
	"hapair/mirror/state"
	"hapair/mirror/store"
	"hapair/mirror/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type pairNode struct {
	*Resource
	name string
	door *door
	obs  *observer
	dir  string
	meta string // a file of its own, or MetadataInternal
	ends Ends
	disk *sickDisk
	md   *sickDisk // of the metadata, where those are apart

	mdFull bool
	kept   door                                       // what it gave up
	over   func(path string, d block.Disk) block.Disk // put around every disk; may be nil
}

type pair struct {
	t      *testing.T
	ledger *ledger
	wire   *wireUp
	nodes  [2]*pairNode
	l      net.Listener
	clock  Clock
	called atomic.Pointer[Resource] // who takes what is dialed

	takeBack time.Duration // of the Config
}

const pairSize = 16 << 20

func newPair(t *testing.T) *pair {
	t.Helper()
	p := layPair(t)
	for i, n := range p.nodes {
		create(t, n.dir, n.name, n.name0(i), 0)
	}
	p.start()
	return p
}

// layPair is a pair whose disks are to be made.
func layPair(t *testing.T) *pair {
	start := time.Now()
	p := &pair{t: t, wire: &wireUp{}, clock: func() time.Duration { return time.Since(start) + time.Second }}
	p.ledger = &ledger{rec: wire.Record{Token: 1, InSync: []string{"alpha", "beta"}}}
	for i, name := range []string{"alpha", "beta"} {
		dir := t.TempDir()
		p.nodes[i] = &pairNode{name: name, dir: dir, meta: filepath.Join(dir, "md")}
	}
	return p
}

// start opens the disks of both nodes and lets the two meet.
func (p *pair) start() {
	t := p.t
	t.Helper()
	for i := range p.nodes {
		p.open(i)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.l, p.wire.addr = l, l.Addr().String()
	go p.accept()
	for _, n := range p.nodes {
		n.Start()
	}
	t.Cleanup(p.close)
}

// create makes the disks of a node, with an activity log of so many slots; 0 is
// the default.
func create(t *testing.T, dir, node, peer string, slots int) {
	t.Helper()
	files(t, dir, pairSize, meta.CreateParams{ActivitySlots: slots, Node: node, Peer: peer})
}

// files makes a disk and its metadata.
func files(t *testing.T, dir string, size int64, p meta.CreateParams) {
	t.Helper()
	for name, bytes := range map[string]int64{"disk": size, "md": meta.NeededFor(size, cmp.Or(p.ActivitySlots, actlog.DefaultSlots))} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		must(t, os.Truncate(filepath.Join(dir, name), bytes))
	}
	d, err := store.Open(filepath.Join(dir, "md"), store.Options{})
	must(t, err)
	p.Placement, p.DataBytes, p.Cluster, p.Resource, p.Flags = meta.External, size, "c", "r", meta.AssumeClean
	_, err = meta.Create(d, p)
	must(t, err)
	must(t, d.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (p *pair) open(i int) {
	n := p.nodes[i]
	n.door = &door{}
	n.obs = &observer{t: p.t, node: n.name, ch: make(chan struct{}, 1), dep: make(chan error, 1)}
	r, err := Open(p.t.Context(), Config{Cluster: "c", Resource: "r", Self: n.name, Peer: p.nodes[1-i].name0(i), Record: p.ledger.rec,
		Volumes: []VolumeConfig{{Disk: filepath.Join(n.dir, "disk"), Metadata: n.meta, Ends: n.ends, Frontend: n.door, Wrap: n.wrap}},
		Ledger:  p.ledger, Dialer: p.wire, TakeBack: p.takeBack, Clock: p.clock, Observer: n.obs, Logger: zap.NewNop(),
		Aside: AsideConfig{Dir: filepath.Join(n.dir, "split-brain", "r"), View: func(uint16) (front.Frontend, error) { return &n.kept, nil }}})
	must(p.t, err)
	n.Resource = r
	if i == 1 {
		p.called.Store(r)
	}
	p.ledger.mu.Lock()
	p.ledger.nodes = append(p.ledger.nodes, r)
	p.ledger.mu.Unlock()
	r.SetRecord(p.ledger.rec)
}

// wrap lets the disks fail when a test says so.
func (n *pairNode) wrap(path string, d block.Disk) block.Disk {
	if n.over != nil {
		d = n.over(path, d)
	}
	sick := &sickDisk{Disk: d, path: path}
	if filepath.Base(path) == "disk" {
		n.disk = sick
	} else {
		n.md = sick
		sick.full(n.mdFull)
	}
	return sick
}

func (n *pairNode) name0(i int) string { return [2]string{"beta", "alpha"}[i] }

func (p *pair) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		var n [1]byte
		if _, err := c.Read(n[:]); err != nil {
			c.Close()
			continue
		}
		purpose := make([]byte, n[0])
		if _, err := c.Read(purpose); err != nil {
			c.Close()
			continue
		}
		if _, ok := link.ResourceOf(string(purpose)); ok {
			p.called.Load().Accept(c, string(purpose))
		}
	}
}

func (p *pair) close() {
	p.l.Close()
	for _, n := range p.nodes {
		if n.View().Role == state.Primary {
			must(p.t, n.Abort(context.Background(), errors.New("test ends")))
		}
	}
	for _, n := range p.nodes {
		must(p.t, n.Close(context.Background()))
	}
}

// await waits for a condition on a node's view.
func (n *pairNode) await(t *testing.T, what string, ok func(View) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok(n.View()) {
		select {
		case <-n.obs.ch:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s never became %s: %+v", n.name, what, n.View().View)
		}
	}
}

func established(v View) bool { return v.Replication == state.Established }

// established waits until both ends know that every write is replicated.
func (p *pair) established() {
	p.t.Helper()
	for _, n := range p.nodes {
		n.await(p.t, "Established", established)
	}
}

func (p *pair) promote(i int) {
	p.t.Helper()
	rec, err := p.ledger.change(p.ledger.rec.Token, func(r *wire.Record) { r.Tenure, r.Primary = r.Token, p.nodes[i].name })
	must(p.t, err)
	p.nodes[i].SetRecord(rec)
	_, err = p.nodes[i].Promote(p.t.Context(), rec.Tenure, false)
	must(p.t, err)
	p.nodes[i].SetLease(rec.Tenure, p.clock()+time.Hour)
}

func (p *pair) demote(i int) {
	p.t.Helper()
	must(p.t, p.nodes[i].Demote(p.t.Context()))
	_, err := p.ledger.change(p.ledger.rec.Token, func(r *wire.Record) { r.Primary = "" })
	must(p.t, err)
}

func (p *pair) cutWire(cut bool) {
	p.wire.mu.Lock()
	p.wire.cut = cut
	p.wire.mu.Unlock()
	if cut {
		p.nodes[0].DropSession(errors.New("cable is cut"))
	}
}

func fill(seed uint64, n int) []byte {
	b := block.Aligned(n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (p *pair) equal() {
	p.t.Helper()
	var data [2][]byte
	for i, n := range p.nodes {
		b, err := os.ReadFile(filepath.Join(n.dir, "disk"))
		must(p.t, err)
		data[i] = b
	}
	if !bytes.Equal(data[0], data[1]) {
		for i := range data[0] {
			if data[0][i] != data[1][i] {
				p.t.Fatalf("copies differ from byte %d on", i)
			}
		}
	}
}

func TestMirrorLosesThePeerAndResyncs(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.established()
	p.promote(0)
	for i := range 64 {
		must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: int64(i) * 37 * 4096, Length: 8192, Data: fill(uint64(i), 8192)}))
	}
	must(t, a.door.do(t, &block.Request{Op: block.Flush}))
	p.equal()

	p.cutWire(true)
	for i := range 32 {
		must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: int64(i) * 41 * 4096, Length: 4096, Data: fill(uint64(100+i), 4096)}))
	}
	must(t, a.door.do(t, &block.Request{Op: block.WriteZeroes, Offset: 1 << 20, Length: 1 << 20}))
	if v := a.View(); slices.Contains(v.Record.InSync, "beta") || v.Volumes[0].DirtyBytes == 0 {
		t.Fatalf("answered without the peer, but the record is %+v and %d bytes are dirty", v.Record, v.Volumes[0].DirtyBytes)
	}
	p.cutWire(false)
	a.await(t, "in sync again", func(v View) bool { return established(v) && slices.Contains(v.Record.InSync, "beta") })
	b.await(t, "in sync again", established)
	if d := a.View().Volumes[0].DirtyBytes; d != 0 {
		t.Fatalf("%d bytes are still dirty", d)
	}
	must(t, a.door.do(t, &block.Request{Op: block.Flush}))
	p.equal()

	p.demote(0)
	p.promote(1)
	got := block.Aligned(4096)
	must(t, b.door.do(t, &block.Request{Op: block.Read, Offset: 41 * 4096, Length: 4096, Data: got}))
	if !bytes.Equal(got, fill(101, 4096)) {
		t.Fatal("the new Primary reads something else than was written")
	}
}

func TestAnswersWaitForTheLedger(t *testing.T) {
	p := newPair(t)
	a := p.nodes[0]
	p.established()
	p.promote(0)
	p.ledger.mu.Lock()
	p.ledger.down = true
	p.ledger.mu.Unlock()
	p.cutWire(true)
	ch := make(chan error, 1)
	a.door.h.Submit(&block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096), Done: func(_ *block.Request, err error) { ch <- err }})
	a.await(t, "waiting for the ledger", func(v View) bool { return v.Excluding })
	select {
	case err := <-ch:
		t.Fatalf("answered (%v) though the ledger could not take the peer out", err)
	default:
	}
	p.ledger.mu.Lock()
	p.ledger.down = false
	p.ledger.mu.Unlock()
	must(t, <-ch)
	if v := a.View(); slices.Contains(v.Record.InSync, "beta") {
		t.Fatalf("answered alone while the ledger still counts the peer: %+v", v.Record)
	}
}

func TestNothingIsAnsweredWithoutALease(t *testing.T) {
	p := newPair(t)
	a := p.nodes[0]
	p.established()
	p.promote(0)
	tenure := a.View().Tenure
	a.SetLease(tenure, 0)
	ch := make(chan error, 1)
	a.door.h.Submit(&block.Request{Op: block.Read, Length: 4096, Data: block.Aligned(4096), Done: func(_ *block.Request, err error) { ch <- err }})
	select {
	case err := <-ch:
		t.Fatalf("answered without a lease: %v", err)
	default:
	}
	a.SetLease(tenure, p.clock()+time.Hour)
	must(t, <-ch)
	a.SetLease(tenure, 0)
	a.door.h.Submit(&block.Request{Op: block.Read, Length: 4096, Data: block.Aligned(4096), Done: func(_ *block.Request, err error) { ch <- err }})
	must(t, a.Abort(t.Context(), fmt.Errorf("a higher token: %w", block.ErrNotPrimary)))
	if err := <-ch; !errors.Is(err, block.ErrNotPrimary) {
		t.Fatalf("held I/O ended with %v, expected ErrNotPrimary", err)
	}
}

func TestAbortDoesNotWaitForTheLedger(t *testing.T) {
	p := newPair(t)
	a := p.nodes[0]
	p.established()
	p.promote(0)
	p.ledger.mu.Lock()
	p.ledger.down = true
	p.ledger.mu.Unlock()
	p.cutWire(true)
	ch := make(chan error, 1)
	a.door.h.Submit(&block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096), Done: func(_ *block.Request, err error) { ch <- err }})
	a.await(t, "waiting for the ledger", func(v View) bool { return v.Excluding })
	must(t, a.Abort(t.Context(), block.ErrNotPrimary))
	if err := <-ch; !errors.Is(err, block.ErrNotPrimary) {
		t.Fatalf("a write that nobody decided ended with %v", err)
	}
	if v := a.View(); v.Role != state.Secondary || v.Volumes[0].DirtyBytes == 0 {
		t.Fatalf("after Abort: %s, %d dirty bytes; what was in flight must be dirty", v.Role, v.Volumes[0].DirtyBytes)
	}
}
