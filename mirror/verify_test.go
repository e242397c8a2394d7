package mirror

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/engine"
)

// rot changes a sector of a copy behind the mirror's back.
func (n *pairNode) rot(t *testing.T, offset int64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(n.dir, "disk"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(fill(77, block.SectorBytes), offset)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

// writing keeps an application busy until the test says stop; what it touches
// never reaches the last MiB.
func (p *pair) writing(n *pairNode) (stop func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var done sync.WaitGroup
	for w := range 4 {
		done.Add(1)
		go func() {
			defer done.Done()
			for i := 0; ctx.Err() == nil; i++ {
				at := int64((i*13+w*977)%(pairSize>>12-256)) * 4096
				if err := n.door.do(p.t, &block.Request{Op: block.Write, Offset: at, Length: 4096, Data: fill(uint64(i*4+w), 4096)}); err != nil {
					p.t.Errorf("a write beside a verify: %v", err)
					return
				}
			}
		}()
	}
	return func() { cancel(); done.Wait() }
}

func verified(v View) bool { return v.Verify.State == engine.VerifyDone }

// A verify beside an application finds the block that is wrong, and no other;
// with Repair the copies are equal afterwards.
func TestVerifyBesideAnApplication(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.established()
	p.promote(0)
	stop := p.writing(a)
	must(t, a.Verify(t.Context(), VerifyOptions{Volume: AllVolumes}))
	a.await(t, "verified", verified)
	if w := a.View().Verify; w.Differing != 0 || w.Done != pairSize {
		t.Fatalf("a false alarm: %+v", w)
	}
	const at = pairSize - 3*4096
	b.rot(t, at+512)
	must(t, a.Verify(t.Context(), VerifyOptions{Volume: 0}))
	a.await(t, "verified", verified)
	w := a.View().Verify
	if w.Differing != 1 || len(w.Found) != 1 || w.Found[0].Offset != at || w.Found[0].Length != 4096 || w.Found[0].Repaired {
		t.Fatalf("found %+v", w)
	}
	if d := a.View().Volumes[0].DirtyBytes; d != 4096 {
		t.Fatalf("%d bytes are marked", d)
	}
	if told, _ := a.obs.told(); len(told) == 0 {
		t.Fatal("nobody was told")
	}
	must(t, a.Verify(t.Context(), VerifyOptions{Volume: AllVolumes, Repair: true}))
	a.await(t, "verified", verified)
	if w := a.View().Verify; w.Differing != 1 || w.Repaired != 1 || a.View().Volumes[0].DirtyBytes != 0 {
		t.Fatalf("not repaired: %+v", w)
	}
	stop()
	must(t, a.door.do(t, &block.Request{Op: block.Flush}))
	p.equal()
}

// What a verify has found and not repaired is repaired by the next resync, in
// the same direction.
func TestWhatAVerifyFoundIsResynced(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.established()
	p.promote(0)
	b.rot(t, 8192)
	must(t, a.Verify(t.Context(), VerifyOptions{Volume: AllVolumes}))
	a.await(t, "verified", verified)
	a.DropSession(errors.New("cable is moved"))
	a.await(t, "in sync again", func(v View) bool { return established(v) && v.Volumes[0].DirtyBytes == 0 && v.Record.Token > 2 })
	if w := a.View().Verify; w.Differing != 1 || w.Repaired != 1 || !w.Found[0].Repaired {
		t.Fatalf("%+v", w)
	}
	p.equal()
}

func TestVerifyGoesOnAfterASessionAndCanBeStopped(t *testing.T) {
	p := newPair(t)
	a := p.nodes[0]
	p.established()
	p.promote(0)
	must(t, a.Verify(t.Context(), VerifyOptions{Volume: AllVolumes, Rate: 2 << 20}))
	a.await(t, "on its way", func(v View) bool { return v.Verify.Done > 0 })
	p.cutWire(true)
	a.await(t, "waiting", func(v View) bool { return v.Verify.Waits != "" })
	before := a.View().Verify.Done
	p.cutWire(false)
	a.await(t, "further", func(v View) bool { return v.Verify.Done > before })
	must(t, a.StopVerify(t.Context()))
	w := a.View().Verify
	if w.State != engine.VerifyStopped || w.Done < before {
		t.Fatalf("%+v", w)
	}
	must(t, a.Verify(t.Context(), VerifyOptions{Volume: AllVolumes, Resume: true}))
	a.await(t, "verified", verified)
	if w := a.View().Verify; w.Differing != 0 {
		t.Fatalf("%+v", w)
	}
	if err := a.Verify(t.Context(), VerifyOptions{Volume: AllVolumes, Resume: true}); !errors.Is(err, engine.ErrBadState) {
		t.Fatalf("resumed what was done: %v", err)
	}
}

// The node goes away, or hands over, in the middle of a verify.
func TestVerifyEndsWithItsNode(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.established()
	p.promote(0)
	must(t, a.Verify(t.Context(), VerifyOptions{Volume: AllVolumes, Rate: 2 << 20, Repair: true}))
	p.demote(0)
	p.promote(1)
	a.await(t, "waiting", func(v View) bool { return v.Verify.State == engine.VerifyRunning && v.Verify.Waits != "" })
	must(t, b.Verify(t.Context(), VerifyOptions{Volume: AllVolumes, Repair: true}))
	b.await(t, "verified", verified)
	must(t, b.Verify(t.Context(), VerifyOptions{Volume: AllVolumes, Rate: 2 << 20}))
	if w := b.View().Verify; w.State != engine.VerifyRunning {
		t.Fatalf("%+v", w)
	}
}
