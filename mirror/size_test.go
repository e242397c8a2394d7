package mirror

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/meta"
	"hapair/mirror/store"
)

// exchange gives a node a new disk with internal metadata of its own.
func (p *pair) exchange(i int, diskBytes int64) {
	p.t.Helper()
	n := p.nodes[i]
	must(p.t, n.Close(p.t.Context()))
	p.ledger.mu.Lock()
	p.ledger.nodes = slices.DeleteFunc(p.ledger.nodes, func(r *Resource) bool { return r == n.Resource })
	p.ledger.mu.Unlock()
	n.dir, n.meta = p.t.TempDir(), MetadataInternal
	disk := filepath.Join(n.dir, "disk")
	must(p.t, os.WriteFile(disk, nil, 0o600))
	must(p.t, os.Truncate(disk, diskBytes))
	d, err := store.Open(disk, store.Options{})
	must(p.t, err)
	_, err = meta.Create(d, meta.CreateParams{Placement: meta.Internal, Cluster: "c", Resource: "r", Node: n.name, Peer: n.name0(i)})
	must(p.t, err)
	must(p.t, d.Close())
	p.open(i)
	n.Start()
}

// A disk that is exchanged for a larger one is filled, and has the size of the
// volume from then on, also after a restart.
func TestExchangedDiskMayBeLarger(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes[0], p.nodes[1]
	p.established()
	p.promote(0)
	const last = pairSize - 4096
	must(t, a.door.do(t, &block.Request{Op: block.Write, Offset: last, Length: 4096, Data: fill(1, 4096)}))
	p.exchange(1, 2*pairSize+123*4096)
	b.await(t, "in sync", func(v View) bool { return established(v) && v.Volumes[0].SizeBytes == pairSize })
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(2, 4096)}))
	must(t, a.door.do(t, &block.Request{Op: block.Flush}))
	data, err := os.ReadFile(filepath.Join(b.dir, "disk"))
	must(t, err)
	if !bytes.Equal(data[:4096], fill(2, 4096)) || !bytes.Equal(data[last:pairSize], fill(1, 4096)) {
		t.Fatal("the new disk does not hold what the old one did")
	}

	must(t, b.Close(t.Context()))
	p.open(1)
	b.Start()
	b.await(t, "in sync again", established)
	if got := b.View().Volumes[0].SizeBytes; got != pairSize {
		t.Fatalf("after a restart it has %d bytes", got)
	}
	p.demote(0)
	p.promote(1)
	if err := b.door.do(t, &block.Request{Op: block.Read, Offset: pairSize, Length: 4096, Data: block.Aligned(4096)}); err == nil {
		t.Fatal("the device has the size of the disk, not of the volume")
	}
}
