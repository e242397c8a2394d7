package mirror

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// givenUp is a pair whose Primary's disk has failed; the first node goes on
// through the second.
func givenUp(t *testing.T) *pair {
	t.Helper()
	p := newPair(t)
	p.established()
	p.promote(0)
	a := p.nodes[0]
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 1 << 20, Data: fill(1, 1<<20)}))
	a.disk.writes.Store(true)
	a.disk.reads.Store(true)
	must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: 8192, Length: 4096, Data: fill(2, 4096)}))
	a.await(t, "forwarding", func(v View) bool {
		return v.Replication == state.Forwarding && slices.Equal(v.Record.InSync, []string{"beta"})
	})
	got := block.Aligned(4096)
	must(t, a.door.do(t, &block.Request{Op: block.Read, Offset: 8192, Length: 4096, Data: got}))
	if !slices.Equal(got, fill(2, 4096)) {
		t.Fatal("what was written through the peer reads otherwise")
	}
	return p
}

// A Primary takes its disk into use again and is in the set when its copy is
// complete: the same disk, or a blank one.
func TestAttach(t *testing.T) {
	for name, blank := range map[string]bool{"the same disk": false, "a blank one": true} {
		t.Run(name, func(t *testing.T) {
			p := givenUp(t)
			a := p.nodes[0]
			if blank {
				file := filepath.Join(a.dir, "disk")
				size := sizeOf(t, file)
				must(t, os.Remove(file))
				must(t, os.WriteFile(file, make([]byte, size+1<<20), 0o600)) // larger, even
			}
			must(t, a.Attach(t.Context(), AttachOptions{Create: blank}))
			must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: 16384, Length: 4096, Data: fill(3, 4096)}))
			a.await(t, "in sync", func(v View) bool {
				return established(v) && len(v.Record.InSync) == 2 && v.Volumes[0].Disk == state.UpToDate
			})
			p.nodes[1].await(t, "in sync", func(v View) bool { return established(v) && v.Volumes[0].DirtyBytes == 0 })
			must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: 32768, Length: 4096, Data: fill(4, 4096)}))
			must(t, a.door.do(t, &block.Request{Op: block.Flush}))
			if blank { // the file is longer now; what counts is as long as it was
				must(t, os.Truncate(filepath.Join(a.dir, "disk"), sizeOf(t, filepath.Join(p.nodes[1].dir, "disk"))))
			}
			p.equal()
		})
	}
}

// secondaryFailed is a pair whose Secondary's disk has failed.
func secondaryFailed(t *testing.T) *pair {
	t.Helper()
	p := newPair(t)
	p.established()
	p.promote(0)
	p.secondaryFails()
	return p
}

// secondaryFails has the disk of beta fail a write.
func (p *pair) secondaryFails() {
	t, b := p.t, p.nodes[1]
	t.Helper()
	b.disk.writes.Store(true)
	must(t, p.nodes[0].door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)}))
	b.await(t, "failed", func(v View) bool { return v.Volumes[0].Disk == state.Failed })
}

// A Secondary does without a restart as well.
func TestAttachOnTheSecondary(t *testing.T) {
	p := secondaryFailed(t)
	b := p.nodes[1]
	must(t, b.Attach(t.Context(), AttachOptions{}))
	b.await(t, "in sync", func(v View) bool { return established(v) && v.Volumes[0].Disk == state.UpToDate })
	p.equal()
}

// What cannot be attached is refused, and the resource goes on as before.
func TestAttachRefused(t *testing.T) {
	p := givenUp(t)
	a := p.nodes[0]
	if err := p.nodes[1].Attach(t.Context(), AttachOptions{}); !errors.Is(err, engine.ErrBadState) {
		t.Errorf("a good disk: %v", err)
	}
	file := filepath.Join(a.dir, "disk")
	must(t, os.Rename(file, file+".away"))
	for range 2 {
		if err := a.Attach(t.Context(), AttachOptions{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no disk: %v", err)
		}
	}
	must(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	if err := a.Attach(t.Context(), AttachOptions{Create: true}); !errors.Is(err, engine.ErrBadGeometry) {
		t.Errorf("a small disk: %v", err)
	}
	must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: 16384, Length: 4096, Data: fill(3, 4096)}))
	must(t, os.Rename(file+".away", file))
	must(t, a.Attach(t.Context(), AttachOptions{}))
	a.await(t, "in sync", established)
	p.equal()
}

// sizeOf is the length of a file, in bytes.
func sizeOf(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	must(t, err)
	return info.Size()
}

// An agent that could not attach a disk still ends in order.
func TestCloseAfterAnAttachThatFailed(t *testing.T) {
	p := secondaryFailed(t)
	b := p.nodes[1]
	must(t, os.Rename(filepath.Join(b.dir, "disk"), filepath.Join(b.dir, "disk.away")))
	if err := b.Attach(t.Context(), AttachOptions{}); err == nil {
		t.Fatal("attached")
	}
	must(t, b.Close(t.Context()))
}

// A disk that hangs while it is opened keeps no other command waiting. No second attach
// begins before; the first goes on by itself when the disk answers.
func TestDiskThatHangsInOpen(t *testing.T) {
	p := givenUp(t)
	a := p.nodes[0]
	answers, asked := make(chan struct{}), make(chan struct{}, 1)
	a.over = func(_ string, d block.Disk) block.Disk {
		asked <- struct{}{}
		<-answers
		return d
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Attach(ctx, AttachOptions{}) }()
	<-asked
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("the attach ends with %v", err)
	}
	if err := a.Attach(t.Context(), AttachOptions{}); !errors.Is(err, engine.ErrBadState) || !strings.Contains(err.Error(), "for an attach before this one") {
		t.Fatalf("another attach: %v", err)
	}
	p.demote(0) // waits for no disk
	p.promote(1)
	close(answers)
	a.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
	p.equal()
}
