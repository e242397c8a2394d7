package mirror

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/meta"
	"hapair/mirror/state"
	"hapair/mirror/store"
	"hapair/test/fault"
)

// lastEnd keeps it in memory.
type lastEnd struct {
	mu  sync.Mutex
	end int64
}

func (l *lastEnd) Last() int64 { l.mu.Lock(); defer l.mu.Unlock(); return l.end }
func (l *lastEnd) Keep(end int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = end
	return nil
}

const (
	growDisk = 12 << 20
	growTo   = 40 << 20
)

// internalPair is a pair on disks with internal metadata, which may have a layer of
// the test's around them.
func internalPair(t *testing.T, over ...func(n *pairNode, d block.Disk) block.Disk) *pair {
	t.Helper()
	p := layPair(t)
	for i, n := range p.nodes {
		n.meta, n.ends = MetadataInternal, &lastEnd{}
		for _, layer := range over {
			n.over = func(_ string, d block.Disk) block.Disk { return layer(n, d) }
		}
		disk := filepath.Join(n.dir, "disk")
		must(t, os.WriteFile(disk, nil, 0o600))
		must(t, os.Truncate(disk, growDisk))
		d, err := store.Open(disk, store.Options{})
		must(t, err)
		_, err = meta.Create(d, meta.CreateParams{Placement: meta.Internal, Cluster: "c", Resource: "r", Node: n.name, Peer: n.name0(i), Flags: meta.AssumeClean})
		must(t, err)
		must(t, d.Close())
	}
	p.start()
	p.established()
	return p
}

// enlarge makes a node's disk larger, filled with what somebody else left there.
func enlarge(t *testing.T, n *pairNode, size int64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(n.dir, "disk"), os.O_WRONLY|os.O_APPEND, 0o600)
	must(t, err)
	st, err := f.Stat()
	must(t, err)
	_, err = f.Write(fill(uint64(n.name[0]), int(size-st.Size())))
	must(t, errors.Join(err, f.Close()))
}

// A volume grows under writers on both sides of the move of the metadata; what
// is new reads zero, and is mirrored; a restart finds all of it.
func TestVolumeGrowsWhileItIsWritten(t *testing.T) {
	p := internalPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.promote(0)
	was := a.View().Volumes[0].SizeBytes
	must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: was - 4096, Length: 4096, Data: fill(1, 4096)}))
	for _, n := range p.nodes {
		enlarge(t, n, growTo)
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		var err error
		for i := int64(0); err == nil; i++ {
			select {
			case <-stop:
				ended <- nil
				return
			default:
				done := make(chan error, 1)
				a.door.h.Submit(&block.Request{Op: block.Write, Offset: i % 2 * 8 << 20, Length: 4096, Data: fill(uint64(i), 4096), Done: func(_ *block.Request, err error) { done <- err }})
				err = <-done
			}
		}
		ended <- err
	}()
	size, err := a.Resize(t.Context(), ResizeOptions{})
	must(t, err)
	close(stop)
	must(t, <-ended)
	want := meta.DataBytesFor(growTo, 6433)
	if size != want || a.door.shows() != want {
		t.Fatalf("%d bytes, the device shows %d, want %d", size, a.door.shows(), want)
	}
	b.await(t, "as large", func(v View) bool { return established(v) && v.Volumes[0].SizeBytes == want })
	back := block.Aligned(1 << 20)
	must(t, a.door.do(t, &block.Request{Op: block.Read, Offset: was, Length: 1 << 20, Data: back}))
	if !bytes.Equal(back, make([]byte, 1<<20)) {
		t.Fatal("what is new does not read zero")
	}
	must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: want - 4096, Length: 4096, Data: fill(3, 4096)}))
	p.demote(0)
	if v := a.View(); len(v.Record.InSync) != 2 || v.Volumes[0].DirtyBytes != 0 {
		t.Fatalf("in sync are %v, %d bytes are marked", v.Record.InSync, v.Volumes[0].DirtyBytes)
	}
	sameData(t, p, want)
	must(t, b.Close(t.Context()))
	p.open(1)
	b.Start()
	p.established()
	if got := b.View().Volumes[0].SizeBytes; got != want {
		t.Fatalf("after a restart %d bytes", got)
	}
}

// sameData: the disks of both nodes hold the same in their first bytes.
func sameData(t *testing.T, p *pair, bytesOf int64) {
	t.Helper()
	var data [2][]byte
	for i, n := range p.nodes {
		all, err := os.ReadFile(filepath.Join(n.dir, "disk"))
		must(t, err)
		data[i] = all[:bytesOf]
	}
	if !bytes.Equal(data[0], data[1]) {
		t.Fatal("the copies differ")
	}
}

// A disk that was not enlarged is named, nothing grows, and it can be asked again.
func TestOneDiskIsTooSmall(t *testing.T) {
	p := internalPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.promote(0)
	enlarge(t, a, growTo)
	was := a.View().Volumes[0].SizeBytes
	if size, err := a.Resize(t.Context(), ResizeOptions{}); size != was || err != nil {
		t.Fatalf("as far as both disks go: %d bytes, %v", size, err)
	}
	_, err := a.Resize(t.Context(), ResizeOptions{Size: growTo / 2})
	if !errors.Is(err, engine.ErrNoRoom) {
		t.Fatalf("beyond the disk of beta: %v", err)
	}
	enlarge(t, b, growTo)
	if size, err := a.Resize(t.Context(), ResizeOptions{Size: growTo / 2}); size != growTo/2 || err != nil {
		t.Fatalf("%d bytes, %v", size, err)
	}
	if _, err := a.Resize(t.Context(), ResizeOptions{Size: growTo / 4}); !errors.Is(err, engine.ErrBadState) {
		t.Fatalf("smaller, while it is in use: %v", err)
	}
	must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: growTo/2 - 4096, Length: 4096, Data: fill(1, 4096)}))
	p.demote(0)
	sameData(t, p, growTo/2)
}

// A node that starts after its disk was enlarged, before anybody resized, finds
// its metadata where they were.
func TestRestartBeforeAResize(t *testing.T) {
	p := internalPair(t)
	b := p.nodes[1]
	must(t, b.Close(t.Context()))
	enlarge(t, b, growTo)
	p.open(1)
	b.Start()
	p.established()
	enlarge(t, p.nodes[0], growTo)
	if size, err := b.Resize(t.Context(), ResizeOptions{}); size != meta.DataBytesFor(growTo, 6433) || err != nil {
		t.Fatalf("led by a Secondary of two: %d bytes, %v", size, err)
	}
	p.promote(0)
	if got := p.nodes[0].door.shows(); got != meta.DataBytesFor(growTo, 6433) {
		t.Fatalf("the device shows %d bytes", got)
	}
}

// The peer is away: only on request, and only when it is out of the set; it
// follows when it is back.
func TestGrowWithoutThePeer(t *testing.T) {
	p := internalPair(t)
	a := p.nodes[0]
	p.promote(0)
	for _, n := range p.nodes {
		enlarge(t, n, growTo)
	}
	p.cutWire(true)
	a.await(t, "alone", func(v View) bool { return !v.Connected })
	if _, err := a.Resize(t.Context(), ResizeOptions{}); !errors.Is(err, engine.ErrPeerAway) {
		t.Fatalf("without a word: %v", err)
	}
	if _, err := a.Resize(t.Context(), ResizeOptions{AssumePeerHasSpace: true}); !errors.Is(err, engine.ErrBadState) {
		t.Fatalf("while the ledger counts the peer: %v", err)
	}
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)}))
	want := meta.DataBytesFor(growTo, 6433)
	if size, err := a.Resize(t.Context(), ResizeOptions{AssumePeerHasSpace: true}); size != want || err != nil {
		t.Fatalf("%d bytes, %v", size, err)
	}
	must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: want - 4096, Length: 4096, Data: fill(2, 4096)}))
	p.cutWire(false)
	for _, n := range p.nodes {
		n.await(t, "in sync again", func(v View) bool {
			return established(v) && len(v.Record.InSync) == 2 && v.Volumes[0].SizeBytes == want
		})
	}
	p.demote(0)
	sameData(t, p, want)
}

// unpluggable passes an Unplug on to the disk below one that fails.
type unpluggable struct {
	*fault.Disk
	inner block.Disk
}

func (u unpluggable) Unplug() { unplug(u.inner) }

// A disk whose metadata could be laid out anew, and what was to come after that not,
// counts as failed; attached again it has the new size.
func TestDiskThatGrewAndFailedIsAttached(t *testing.T) {
	var hurt *fault.Disk // of beta
	p := internalPair(t, func(_ *pairNode, d block.Disk) block.Disk {
		hurt = fault.New(d)
		return unpluggable{hurt, d}
	})
	a, b := p.nodes[0], p.nodes[1]
	p.promote(0)
	p.cutWire(true)
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)})) // a generation of their own
	p.cutWire(false)
	a.await(t, "in line again", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
	for _, n := range p.nodes {
		enlarge(t, n, growTo)
	}
	hurt.Add(fault.Rule{Ops: []block.Op{block.Write}, Offset: growDisk - 2*meta.BlockBytes, Length: 2 * meta.BlockBytes, Err: block.ErrIO}) // where the superblocks were
	if _, err := a.Resize(t.Context(), ResizeOptions{}); err == nil {
		t.Fatal("the volume has grown")
	}
	b.await(t, "failed", func(v View) bool { return v.Volumes[0].Disk == state.Failed })
	must(t, b.Attach(t.Context(), AttachOptions{}))
	want := meta.DataBytesFor(growTo, 6433)
	for _, n := range p.nodes {
		n.await(t, "as large", func(v View) bool {
			return established(v) && v.Volumes[0].SizeBytes == want && len(v.Record.InSync) == 2
		})
	}
	if got := b.vols[0].geo.Load().SizeBytes; got != want {
		t.Fatalf("its front end is offered %d bytes, want %d", got, want)
	}
	if a.door.shows() != want {
		t.Fatalf("the device shows %d, want %d", a.door.shows(), want)
	}
}
