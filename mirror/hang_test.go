package mirror

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/meta"
	"hapair/mirror/state"
	"hapair/mirror/store"
	"hapair/mirror/wire"
	"hapair/test/fault"
)

// slowDisk holds writes for a while.
type slowDisk struct {
	block.Disk
	by *atomic.Int64
	wg sync.WaitGroup
}

func (d *slowDisk) Submit(r *block.Request) {
	if by := time.Duration(d.by.Load()); by > 0 && r.Op == block.Write {
		d.wg.Add(1)
		time.AfterFunc(by, func() { d.Disk.Submit(r); unplug(d.Disk); d.wg.Done() })
		return
	}
	d.Disk.Submit(r)
}

func (d *slowDisk) Unplug() { unplug(d.Disk) }

func (d *slowDisk) Close() error { d.wg.Wait(); return d.Disk.Close() }

// layered is a pair whose disks of one kind ("disk", "md") have a layer of the
// test's around them.
func layered(t *testing.T, kind string, layer func(n *pairNode, d block.Disk) block.Disk) *pair {
	t.Helper()
	return layeredTakingBack(t, 0, kind, layer)
}

// layeredTakingBack is layered, with the pause before a disk that hung is attached.
func layeredTakingBack(t *testing.T, pause time.Duration, kind string, layer func(n *pairNode, d block.Disk) block.Disk) *pair {
	t.Helper()
	p := layPair(t)
	p.takeBack = pause
	for i, n := range p.nodes {
		create(t, n.dir, n.name, n.name0(i), 0)
		n.over = func(path string, d block.Disk) block.Disk {
			if filepath.Base(path) == kind {
				d = layer(n, d)
			}
			return d
		}
	}
	p.start()
	p.established()
	p.promote(0)
	return p
}

// An attach whose caller does not wait for its end goes on.
func TestAttachInterrupted(t *testing.T) {
	var by atomic.Int64
	p := layered(t, "md", func(_ *pairNode, d block.Disk) block.Disk { return &slowDisk{Disk: d, by: &by} })
	b := p.nodes[1]
	p.secondaryFails()
	by.Store(int64(300 * time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Attach(ctx, AttachOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	by.Store(0)
	b.Connect()
	b.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
	p.equal()
}

// The authority is lost while a disk is being attached: it stays attached.
func TestAbortDuringAttach(t *testing.T) {
	var by atomic.Int64
	p := layered(t, "md", func(n *pairNode, d block.Disk) block.Disk {
		if n.name == "alpha" {
			return &slowDisk{Disk: d, by: &by}
		}
		return d
	})
	a := p.nodes[0]
	a.disk.writes.Store(true)
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)}))
	a.await(t, "forwarding", func(v View) bool { return v.Replication == state.Forwarding })
	by.Store(int64(300 * time.Millisecond))
	done := make(chan error, 1)
	go func() { done <- a.Attach(t.Context(), AttachOptions{}) }()
	a.await(t, "attached", func(v View) bool { return v.Volumes[0].Disk == state.Inconsistent })
	must(t, a.Abort(t.Context(), block.ErrNotPrimary))
	if err := <-done; err == nil {
		t.Error("attached, it says, and was interrupted")
	}
	by.Store(0)
	p.promote(1)
	a.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
}

// twoVolumes is a lone Secondary with two volumes, not started yet.
func twoVolumes(t *testing.T) (*Resource, map[string]*sickDisk) {
	t.Helper()
	dir, sick := t.TempDir(), map[string]*sickDisk{}
	rec := wire.Record{Token: 1, InSync: []string{"alpha", "beta"}}
	start := time.Now()
	c := Config{Cluster: "c", Resource: "r", Self: "alpha", Peer: "beta", Record: rec, Ledger: &ledger{rec: rec}, Dialer: &wireUp{cut: true}, Logger: zap.NewNop(),
		Clock:    func() time.Duration { return time.Since(start) + time.Second },
		Observer: &observer{t: t, node: "alpha", ch: make(chan struct{}, 1), dep: make(chan error, 1)}}
	for i := range 2 {
		sub := filepath.Join(dir, string('0'+rune(i)))
		must(t, os.Mkdir(sub, 0o700))
		files(t, sub, pairSize, meta.CreateParams{Volume: uint16(i), Node: "alpha", Peer: "beta"})
		c.Volumes = append(c.Volumes, VolumeConfig{Number: uint16(i), Disk: filepath.Join(sub, "disk"), Metadata: filepath.Join(sub, "md"), Frontend: &door{},
			Wrap: func(path string, d block.Disk) block.Disk {
				s := &sickDisk{Disk: d, path: path}
				sick[filepath.Base(path)+string('0'+rune(i))] = s
				return s
			}})
	}
	r, err := Open(t.Context(), c)
	must(t, err)
	return r, sick
}

// The disk of one volume is attached while that of another fails: the first stays.
func TestAttachWhileAnotherVolumeFails(t *testing.T) {
	r, sick := twoVolumes(t)
	sick["md0"].failWrites(1) // the superblock of this life
	sick["md1"].failWrites(2) // and that it is Outdated
	r.Start()
	disks := func() (out []state.Disk) {
		for _, v := range r.View().Volumes {
			out = append(out, v.Disk)
		}
		return out
	}
	until := func(want ...state.Disk) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !slices.Equal(disks(), want); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%v, want %v", disks(), want)
			}
		}
	}
	r.SetRecord(wire.Record{Token: 2, Tenure: 2, Primary: "beta", InSync: []string{"beta"}}) // Outdated: superblocks are written
	until(state.Failed, state.Outdated)
	err := engine.ErrBadState
	for end := time.Now().Add(20 * time.Second); errors.Is(err, engine.ErrBadState) && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		err = r.Attach(t.Context(), AttachOptions{}) // volume 1 may be writing yet
	}
	if !errors.Is(err, block.ErrIO) {
		t.Fatalf("volume 1 has failed, and: %v", err)
	}
	until(state.Inconsistent, state.Failed) // nothing was ever written to it: it only is declared equal
	must(t, r.Attach(t.Context(), AttachOptions{}))
	if got := disks(); !got[0].HasData() || !got[1].HasData() {
		t.Fatal(got)
	}
	must(t, r.Close(context.Background()))
}

// spindle zeroes one piece after the other, and never stops.
type spindle struct {
	block.Disk
	q chan *block.Request
}

func newSpindle(d block.Disk, took time.Duration) *spindle {
	s := &spindle{d, make(chan *block.Request, 4096)}
	go func() {
		for r := range s.q {
			time.Sleep(took)
			r.Answer(nil)
		}
	}()
	return s
}

func (s *spindle) Submit(r *block.Request) {
	if r.Op == block.WriteZeroes {
		s.q <- r
		return
	}
	s.Disk.Submit(r)
}

func (s *spindle) Unplug() { unplug(s.Disk) }

func (s *spindle) Close() error { close(s.q); return s.Disk.Close() }

// A disk that is given a minute's work at once is busy, and so is the peer's: none
// is given up for it.
func TestBusyDiskIsNoHangingDisk(t *testing.T) {
	const size = 4 << 30 // 256 pieces
	p := layPair(t)
	for i, n := range p.nodes {
		files(t, n.dir, size, meta.CreateParams{Node: n.name, Peer: n.name0(i)})
		n.over = func(path string, d block.Disk) block.Disk {
			if filepath.Base(path) == "disk" {
				return newSpindle(d, 8*time.Millisecond)
			}
			return d
		}
	}
	p.start()
	p.established()
	p.promote(0)
	for _, n := range p.nodes {
		n.Configure(Settings{DiskTimeout: time.Second, Settings: engine.Settings{PeerTimeout: time.Second}})
	}
	must(t, p.nodes[0].door.do(t, &block.Request{Op: block.WriteZeroes, Length: size}))
	for _, n := range p.nodes {
		if told, _ := n.obs.told(); len(told) > 0 {
			t.Errorf("%s: %q", n.name, told)
		}
	}
}

// unplugging is a fault layer that honours Unplug; its Close waits for what hangs, as
// that of a real disk does.
type unplugging struct {
	*fault.Disk
	inner block.Disk
	freed chan struct{}
}

func (u unplugging) Unplug() { unplug(u.inner) }

func (u unplugging) Close() error {
	if u.Hung() > 0 {
		<-u.freed
	}
	return u.Disk.Close()
}

// An agent ends in the time it has, though its disk has a read that never ends.
func TestCloseWithAHangingRead(t *testing.T) {
	var hang unplugging
	p := layered(t, "disk", func(n *pairNode, d block.Disk) block.Disk {
		u := unplugging{fault.New(d), d, make(chan struct{})}
		if n.name == "alpha" {
			hang = u
		}
		return u
	})
	a := p.nodes[0]
	p.cutWire(true)
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)}))
	p.demote(0)
	hang.Add(fault.Rule{Ops: []block.Op{block.Read}, Hang: true})
	p.cutWire(false)
	a.await(t, "reading", func(v View) bool { return v.Replication == state.SyncSource && hang.Hung() > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := a.Close(ctx); !errors.Is(err, block.ErrNoAnswer) {
		t.Errorf("closed with %v", err)
	}
	hang.Clear()
	close(hang.freed)
	hang.Release()
	hang.Unplug()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if d, err := store.Open(filepath.Join(a.dir, "disk"), store.Options{}); err == nil { // it is let go of in the end
			must(t, d.Close())
			p.open(0)
			return
		}
	}
	t.Fatal("the disk was never released")
}
