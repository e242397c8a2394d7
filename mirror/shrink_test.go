package mirror

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/meta"
	"hapair/mirror/state"
	"hapair/mirror/store"
)

const (
	shrinkFrom = 24 << 20
	shrinkTo   = 20 << 20
	shrinkDisk = 28 << 20
	shrinkLess = pairSize - 4<<20
)

func besideSecondary(v View) bool { return established(v) && v.PeerRole == state.Secondary }

// largerPair is a pair with a size in the middle of its disks, which is Primary on the
// first node.
func largerPair(t *testing.T) *pair {
	t.Helper()
	p := layPair(t)
	for i, n := range p.nodes {
		n.meta, n.ends = MetadataInternal, &lastEnd{}
		disk := filepath.Join(n.dir, "disk")
		must(t, errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, shrinkDisk)))
		d, err := store.Open(disk, store.Options{})
		must(t, err)
		_, err = meta.Create(d, meta.CreateParams{Placement: meta.Internal, DataBytes: shrinkFrom, Cluster: "c", Resource: "r", Node: n.name, Peer: n.name0(i), Flags: meta.AssumeClean})
		must(t, errors.Join(err, d.Close()))
	}
	p.start()
	p.established()
	p.promote(0)
	must(t, p.nodes[0].door.do(t, &block.Request{Op: block.Write, Offset: 0, Length: 1 << 20, Data: fill(7, 1<<20)}))
	must(t, p.nodes[0].door.do(t, &block.Request{Op: block.Write, Offset: shrinkTo - 4096, Length: 8192, Data: fill(8, 8192)}))
	return p
}

// A volume becomes smaller while no node is Primary, only when it is said that its
// contents, which nobody knows, may be cut; a restart finds it, it can be used to its
// new end, and grows again.
func TestVolumeShrinks(t *testing.T) {
	p := largerPair(t)
	a, b := p.nodes[0], p.nodes[1]
	if _, err := a.Resize(t.Context(), ResizeOptions{Size: shrinkTo, CutData: true}); !errors.Is(err, engine.ErrBadState) || !strings.Contains(err.Error(), "alpha is Primary") {
		t.Fatalf("while it is in use: %v", err)
	}
	p.demote(0)
	b.await(t, "beside a Secondary", besideSecondary)
	for _, n := range p.nodes {
		if _, err := n.Resize(t.Context(), ResizeOptions{Size: shrinkTo}); !errors.Is(err, engine.ErrWouldCut) || !strings.Contains(err.Error(), "nothing that is known") {
			t.Fatalf("contents that nobody knows: %v", err)
		}
	}
	size, err := b.Resize(t.Context(), ResizeOptions{Size: shrinkTo, CutData: true})
	if size != shrinkTo || err != nil {
		t.Fatalf("%d bytes, %v", size, err)
	}
	for i, n := range p.nodes {
		n.await(t, "as small", func(v View) bool { return established(v) && v.Volumes[0].SizeBytes == shrinkTo })
		if v := n.View(); len(v.Record.InSync) != 2 || v.Volumes[0].DirtyBytes != 0 {
			t.Fatalf("in sync are %v, %d bytes are marked", v.Record.InSync, v.Volumes[0].DirtyBytes)
		}
		if i == 1 {
			must(t, n.Close(t.Context()))
			p.open(1)
			n.Start()
			p.established()
		}
	}
	p.promote(1)
	if got := b.door.shows(); got != 0 && got != shrinkTo {
		t.Fatalf("the device shows %d bytes", got)
	}
	back := block.Aligned(4096)
	must(t, b.door.do(t, &block.Request{Op: block.Read, Offset: shrinkTo - 4096, Length: 4096, Data: back}))
	if string(back) != string(fill(8, 8192)[:4096]) {
		t.Fatal("the last block is not what it was")
	}
	if err := b.door.do(t, &block.Request{Op: block.Write, Offset: shrinkTo, Length: 4096, Data: back}); !errors.Is(err, block.ErrRange) {
		t.Fatalf("behind the new end: %v", err)
	}
	if _, err := b.Resize(t.Context(), ResizeOptions{Size: shrinkFrom}); err != nil {
		t.Fatal("larger again:", err)
	}
	must(t, b.door.do(t, &block.Request{Op: block.Write, Offset: shrinkFrom - 4096, Length: 4096, Data: fill(9, 4096)}))
	p.demote(1)
	sameData(t, p, shrinkFrom)
}

// A real file system is cut to where it ends and no farther, without a word.
func TestShrinkLooksAtTheContents(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("needs mkfs.ext4")
	}
	p := largerPair(t)
	p.demote(0)
	for _, n := range p.nodes {
		if out, err := exec.Command(mkfs, "-q", "-F", "-b", "4096", filepath.Join(n.dir, "disk"), "18M").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	_, err = p.nodes[0].Resize(t.Context(), ResizeOptions{Size: 17 << 20})
	if !errors.Is(err, engine.ErrWouldCut) || !strings.Contains(err.Error(), "ext4 filesystem of 18874368 bytes, 17825792 would cut it by 1048576") {
		t.Fatal(err)
	}
	if size, err := p.nodes[0].Resize(t.Context(), ResizeOptions{Size: 18 << 20}); size != 18<<20 || err != nil {
		t.Fatalf("%d bytes, %v", size, err)
	}
}

// External metadata stay where they are.
func TestShrinkWithExternalMetadata(t *testing.T) {
	p := newPair(t)
	p.established()
	p.promote(0)
	must(t, p.nodes[0].door.do(t, &block.Request{Op: block.Write, Offset: shrinkLess - 4096, Length: 8192, Data: fill(8, 8192)}))
	p.demote(0)
	if size, err := p.nodes[0].Resize(t.Context(), ResizeOptions{Size: shrinkLess, CutData: true}); size != shrinkLess || err != nil {
		t.Fatalf("%d bytes, %v", size, err)
	}
	for i, n := range p.nodes {
		n.await(t, "as small", func(v View) bool { return established(v) && v.Volumes[0].SizeBytes == shrinkLess })
		must(t, n.Close(t.Context()))
		p.open(i)
		n.Start()
		p.established()
		if got := n.View().Volumes[0].SizeBytes; got != shrinkLess {
			t.Fatalf("%s has %d bytes after a restart", n.name, got)
		}
	}
	p.promote(1)
	back := block.Aligned(4096)
	must(t, p.nodes[1].door.do(t, &block.Request{Op: block.Read, Offset: shrinkLess - 4096, Length: 4096, Data: back}))
	if string(back) != string(fill(8, 8192)[:4096]) {
		t.Fatal("the last block is not what it was")
	}
}

// What a node gave up in a split brain, and keeps, is not cut: by neither node.
func TestWhatIsKeptIsNotCut(t *testing.T) {
	p, was := apartPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.discard(0)
	p.demote(1)
	a.await(t, "beside a Secondary", besideSecondary)
	order := ResizeOptions{Size: shrinkLess, CutData: true}
	if _, err := a.Resize(t.Context(), order); !errors.Is(err, ErrKept) {
		t.Fatal(err)
	}
	if _, err := b.Resize(t.Context(), order); !errors.Is(err, engine.ErrRefusedThere) || !strings.Contains(err.Error(), "is kept of it") {
		t.Fatal(err)
	}
	for _, n := range p.nodes {
		n.await(t, "as large as before", func(v View) bool {
			return established(v) && v.Volumes[0].SizeBytes == pairSize && v.Volumes[0].DirtyBytes == 0
		})
	}
	a.shows(t, was)
	must(t, a.DropKept(t.Context()))
	if size, err := b.Resize(t.Context(), order); size != shrinkLess || err != nil {
		t.Fatalf("%d bytes, %v", size, err)
	}
}

// Where a shrink ended between the two copies, the smaller one grows back when
// they meet, and they are equal.
func TestShrinkCutOffGrowsBack(t *testing.T) {
	p := largerPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.demote(0)
	must(t, b.Close(t.Context()))
	remake(t, b, shrinkTo)
	p.open(1)
	if got := b.View().Volumes[0].SizeBytes; got != shrinkTo {
		t.Fatalf("%d bytes", got)
	}
	b.Start()
	p.established()
	for _, n := range p.nodes {
		n.await(t, "as large as before", func(v View) bool {
			return established(v) && len(v.Record.InSync) == 2 && v.Volumes[0].SizeBytes == shrinkFrom && v.Volumes[0].DirtyBytes == 0
		})
	}
	sameData(t, p, shrinkFrom)
	if _, err := a.Resize(t.Context(), ResizeOptions{Size: shrinkTo, CutData: true}); err != nil {
		t.Fatal("again:", err)
	}
	sameData(t, p, shrinkTo)
}

// remake gives a closed copy another size, as a shrink does that its peer did not
// come to.
func remake(t *testing.T, n *pairNode, size int64) {
	t.Helper()
	d, err := store.Open(filepath.Join(n.dir, "disk"), store.Options{})
	must(t, err)
	ms, snap, err := meta.Open(d, meta.Internal, meta.Identity{Cluster: "c", Resource: "r", Node: n.name, LastEnd: n.ends.Last()})
	must(t, err)
	bits := snap.Bitmap.Clone()
	bits.Resize(size)
	must(t, ms.Remake(meta.Remake{Super: snap.Super, DataBytes: size, Bitmap: bits, Log: snap.Log.Restate()}))
	must(t, d.Close())
}
