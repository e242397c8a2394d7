package mirror

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"hapair/mirror/aside"
	"hapair/mirror/block"
	"hapair/mirror/state"
)

// index is the index of what a node keeps.
func (n *pairNode) index() string { return filepath.Join(n.dir, "split-brain", "r", "0.idx") }

// An image that is there and cannot be read now may be whole: nothing is overwritten
// without it, or the life after that would take it for whole.
func TestAnImageThatCannotBeReadNow(t *testing.T) {
	p, _ := apartPair(t)
	a := p.nodes[0]
	p.discard(0)
	must(t, a.Close(context.Background()))
	blocked, err := os.OpenFile(a.index(), os.O_RDWR, 0)
	must(t, err)
	lock(t, blocked)
	_, err = Open(t.Context(), a.cfg)
	if !errors.Is(err, aside.ErrBusy) || !strings.Contains(err.Error(), "nothing may be overwritten") {
		t.Fatalf("the disk is in use without its image: %v", err)
	}
	must(t, blocked.Close())
	p.open(0)
	a.Start()
	if k := a.Kept(); len(k) != 1 || k[0].Phase != aside.Keeping {
		t.Fatalf("kept: %+v", k)
	}
}

// One that is damaged keeps nobody from his work, is found by no later life, and is
// there until it is dropped.
func TestAnImageThatIsDamaged(t *testing.T) {
	p, _ := apartPair(t)
	a := p.nodes[0]
	p.discard(0)
	must(t, a.Close(context.Background()))
	whole, err := os.ReadFile(a.index())
	must(t, err)
	must(t, os.WriteFile(a.index(), make([]byte, 8192), 0o600))
	p.open(0)
	must(t, a.Close(context.Background()))
	if _, err := os.Stat(a.index()); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the next life finds an image that lacks what this one overwrote: %v", err)
	}
	p.open(0)
	a.Start()
	p.nodes[1].Connect()
	p.established()
	if _, err := os.Stat(a.index() + ".unreadable"); err != nil || len(whole) < 3*aside.BlockBytes {
		t.Fatal(err)
	}
	must(t, a.DropKept(t.Context()))
	if left, err := os.ReadDir(filepath.Dir(a.index())); err != nil || len(left) > 0 {
		t.Fatalf("dropped, and there is %v, %v", left, err)
	}
}

// The files go before the keeping ends: a power cut between the two must not leave an
// image that lacks what was overwritten. If they cannot go, the keeping goes on.
func TestDroppingEndsTheKeepingLast(t *testing.T) {
	p, was := apartPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.discard(0)
	must(t, os.Rename(a.index(), a.index()+".away"))
	must(t, os.MkdirAll(filepath.Join(a.index(), "full"), 0o700))
	if err := a.DropKept(t.Context()); err == nil {
		t.Fatal("dropped what cannot be removed")
	}
	if k := a.Kept(); len(k) != 1 {
		t.Fatalf("the files are there, and nothing is kept: %+v", k)
	}
	must(t, os.RemoveAll(a.index()))
	must(t, os.Rename(a.index()+".away", a.index()))
	must(t, b.door.do(t, &block.Request{Op: block.Write, Offset: 9 << 20, Length: 65536, Data: fill(7, 65536)}))
	must(t, b.door.do(t, &block.Request{Op: block.Flush}))
	a.shows(t, was)
}

// A command whose caller has gone away may have given up the copy all the same: what
// it held stays kept.
func TestWhoeverGoesAwayLosesNoImage(t *testing.T) {
	for name, o := range map[string]DiscardOptions{"bitmaps": {}, "whole": {Whole: true}} {
		t.Run(name, func(t *testing.T) {
			p, was := apartPair(t)
			a := p.nodes[0]
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			for range 8 { // chance chose between the answer and the end of the context
				if err := a.DiscardData(gone, o); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrKept) {
					t.Fatal(err)
				}
			}
			for _, x := range p.nodes {
				x.Connect()
			}
			a.await(t, "in line", func(v View) bool { return established(v) && slices.Contains(v.Record.InSync, a.name) })
			if len(a.Kept()) != 1 {
				t.Fatal("given up, and nothing is kept")
			}
			a.shows(t, was)
		})
	}
}

// An undo that failed, and whose copy was filled since, is none that goes on: the next
// life of the agent meets its peer.
func TestAnUndoThatWasGivenUp(t *testing.T) {
	p, was := apartPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.discard(0)
	a.disk.failWrites(20)
	if err := a.Undo(t.Context()); err == nil {
		t.Fatal("the disk failed, and everything was put back")
	}
	must(t, a.Close(context.Background()))
	p.open(0)
	must(t, a.image0(t).SetState(aside.State{Phase: aside.Keeping})) // it is as if an operator had connected the two instead
	a.Start()
	b.Connect()
	p.established()
	a.await(t, "in line", func(v View) bool { return slices.Contains(v.Record.InSync, "alpha") })
	must(t, a.image0(t).SetState(aside.State{Phase: aside.Undoing}))
	must(t, a.Close(context.Background()))
	p.open(0)
	a.Start()
	b.Connect()
	p.established()
	if k := a.Kept(); k[0].Phase != aside.Keeping {
		t.Fatalf("%+v", k)
	}
	a.shows(t, was)
	must(t, a.Undo(t.Context()))
	p.apart()
	if !bytes.Equal(a.image(t), was) {
		t.Fatal("put back, the disk is not what it was")
	}
}

// An agent that ends between the last marks and the word that all is back has nothing
// to do again.
func TestAnUndoThatWasAllButOver(t *testing.T) {
	p, was := apartPair(t)
	a := p.nodes[0]
	p.discard(0)
	must(t, a.Undo(t.Context()))
	p.apart()
	must(t, a.image0(t).SetState(aside.State{Phase: aside.Undoing}))
	must(t, a.Close(context.Background()))
	p.open(0)
	p.nodes[1].Connect()
	a.Start()
	p.apart()
	v := a.View()
	if !bytes.Equal(a.image(t), was) || a.Kept()[0].Phase != aside.Undone || v.Volumes[0].Disk != state.Outdated || v.Volumes[0].DirtyBytes == pairSize {
		t.Fatalf("%+v %+v", a.Kept(), v.Volumes)
	}
}

// image0 is what is kept of the only volume.
func (n *pairNode) image0(t *testing.T) *aside.Image {
	t.Helper()
	m := n.vols[0].image()
	if m == nil {
		t.Fatal("nothing is kept")
	}
	return m
}

func lock(t *testing.T, f *os.File) {
	t.Helper()
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
}

// The images of all volumes share one file system: each has the room that those before
// it leave, and no more than the image of one volume may take.
func TestImagesShareTheRoom(t *testing.T) {
	const gib = 1 << 30
	r, _ := twoVolumes(t)
	t.Cleanup(func() { must(t, r.Close(context.Background())) })
	r.cfg.Aside.Dir = t.TempDir()
	var fs syscall.Statfs_t
	must(t, syscall.Statfs(r.cfg.Aside.Dir, &fs))
	r.cfg.Aside.Free = int64(fs.Bavail)*fs.Bsize - 24*gib // others use it, too, but not so much
	for _, c := range []struct {
		each  int64
		needs []int64
		room  bool
	}{
		{0, []int64{8 * gib, 8 * gib}, true},
		{0, []int64{16 * gib, 16 * gib}, false},
		{9 * gib, []int64{8 * gib, 8 * gib}, true},
		{7 * gib, []int64{gib, 8 * gib}, false},
		{16 * gib, []int64{16 * gib, 16 * gib}, false},
	} {
		r.cfg.Aside.Bytes = c.each
		if err := r.roomAside(c.needs); c.room != (err == nil) || !c.room && !errors.Is(err, aside.ErrNoRoom) {
			t.Errorf("%d bytes each, needed are %d: %v", c.each, c.needs, err)
		}
	}
}
