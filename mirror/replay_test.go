package mirror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/meta"
	"hapair/mirror/state"
	"hapair/mirror/wire"
	"hapair/test/check"
	"hapair/test/replay"
)

// Crash consistency on the real formats: a pair does all that changes data and
// metadata, its disks are recorded, and at every event the power is cut, of both
// nodes or of one, with every kind of loss of what was not flushed. What is left
// is opened and judged by the laws; some of it goes on as a pair.

// replayGrowth is by how much the volume becomes larger on the way.
const replayGrowth = 4 << 20

// replaySlots are fewer than the volume has extents: they go cold all the time.
const replaySlots = 2

// tape is a recorded run, and what a replay learns of it.
type tape struct {
	t     *testing.T
	log   *replay.Log
	disks [2]struct{ data, meta int } // numbers in the log
	start map[int][]byte

	mu   sync.Mutex
	next check.Version

	// as of the event that the replay has come to
	hist   *check.History
	record wire.Record
	before map[int][]check.Version // flushes on their way
	cuts   int
}

// record runs a pair through its days.
func recordPair(t *testing.T) *tape {
	t.Helper()
	x := &tape{t: t, log: &replay.Log{}, start: map[int][]byte{}, hist: check.NewHistory(pairSize), before: map[int][]check.Version{}}
	p := layPair(t)
	x.record = p.ledger.rec
	p.ledger.told = func(r wire.Record) { x.log.Note(func() { x.record = r }) }
	for i, n := range p.nodes {
		create(t, n.dir, n.name, n.name0(i), replaySlots)
		must(t, os.Truncate(filepath.Join(n.dir, "disk"), pairSize+replayGrowth))
		n.over = func(path string, d block.Disk) block.Disk {
			d, number := x.log.Record(d)
			if filepath.Base(path) == "md" {
				x.disks[i].meta = number
				image, err := os.ReadFile(path)
				must(t, err)
				x.start[number] = image
			} else {
				x.disks[i].data = number
			}
			return d
		}
	}
	p.start()
	x.days(p)
	return x
}

// days are what happens to the pair.
func (x *tape) days(p *pair) {
	t, a, b := x.t, p.nodes[0], p.nodes[1]
	p.established()
	p.promote(0)
	x.work(a, 1, 30)
	p.cutWire(true)
	x.work(a, 2, 15) // alone: an exclusion, a generation
	p.cutWire(false)
	x.work(a, 3, 15) // beside the resync
	inSync := func() {
		for _, n := range p.nodes {
			n.await(t, "in sync again", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
		}
	}
	inSync()
	x.grow(a)
	p.demote(0)
	b.await(t, "beside a Secondary", besideSecondary)
	if size, err := b.Resize(t.Context(), ResizeOptions{Size: pairSize, CutData: true}); size != pairSize || err != nil {
		t.Fatalf("smaller again: %d bytes, %v", size, err)
	}
	p.promote(1)
	x.work(b, 5, 15)
	p.ledger.mu.Lock()
	p.ledger.down = true
	p.ledger.mu.Unlock()
	p.cutWire(true)
	done := make(chan error, 1) // a write that nobody decides
	x.write(b, 40<<10, 4096, 0, func(err error) { done <- err })
	b.await(t, "waiting for the ledger", func(v View) bool { return v.Excluding })
	must(t, b.Abort(t.Context(), block.ErrNotPrimary))
	if err := <-done; !errors.Is(err, block.ErrNotPrimary) {
		t.Fatal(err)
	}
	p.ledger.mu.Lock()
	p.ledger.down = false
	p.ledger.mu.Unlock()
	p.cutWire(false)
	inSync()
	p.promote(0)
	x.work(a, 6, 8)
	p.demote(0)
}

// grow has the volume become larger, with the metadata made anew, under writers.
func (x *tape) grow(n *pairNode) {
	var wg sync.WaitGroup
	wg.Go(func() { x.work(n, 4, 8) })
	size, err := n.Resize(x.t.Context(), ResizeOptions{})
	wg.Wait()
	if must(x.t, err); size != pairSize+replayGrowth {
		x.t.Fatalf("%d bytes after the resize", size)
	}
}

// work is some requests of two writers, which do not meet, and of one who flushes.
func (x *tape) work(n *pairNode, seed uint64, requests int) {
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			for i := range requests {
				length := int64(1+rng.IntN(20)) * block.SectorBytes
				at := int64(rng.IntN(4))*actlog.ExtentBytes + int64(w)<<20 + int64(rng.IntN(64))*block.SectorBytes
				done := make(chan error, 1)
				switch i % 8 {
				case 3:
					x.flush(n, func(err error) { done <- err })
				case 5:
					x.zero(n, at, length, func(err error) { done <- err })
				case 6:
					x.write(n, at, length, block.FUA, func(err error) { done <- err })
				default:
					x.write(n, at, length, 0, func(err error) { done <- err })
				}
				if err := <-done; err != nil {
					x.t.Errorf("%s: %v", n.name, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// submit lets the replay know of a change before the mirror does, and of its
// answer before the application does.
func (x *tape) submit(n *pairNode, r *block.Request, end func(error)) {
	x.mu.Lock()
	x.next++
	v := x.next
	offset, length, zero := r.Offset, r.Length, r.Op != block.Write
	x.log.Note(func() {
		if got := x.hist.Submit(offset, length, zero); got != v {
			x.t.Fatalf("version %d is played as %d", v, got)
		}
	})
	x.mu.Unlock()
	for i := 0; i < len(r.Data); i += block.SectorBytes {
		binary.LittleEndian.PutUint64(r.Data[i:], uint64(v))
	}
	r.Done = func(_ *block.Request, err error) {
		if err == nil {
			x.log.Note(func() { x.hist.Acked(v) })
		}
		end(err)
	}
	n.door.h.Submit(r)
}

func (x *tape) write(n *pairNode, offset, length int64, f block.Flags, end func(error)) {
	x.submit(n, &block.Request{Op: block.Write, Flags: f, Offset: offset, Length: length, Data: block.Aligned(int(length))}, end)
}

func (x *tape) zero(n *pairNode, offset, length int64, end func(error)) {
	x.submit(n, &block.Request{Op: block.WriteZeroes, Offset: offset, Length: length}, end)
}

func (x *tape) flush(n *pairNode, end func(error)) {
	x.mu.Lock()
	x.next++ // a version that nothing is written under
	id := int(x.next)
	x.log.Note(func() {
		x.hist.Submit(0, 0, true)
		x.before[id] = x.hist.Snapshot()
	})
	x.mu.Unlock()
	n.door.h.Submit(&block.Request{Op: block.Flush, Done: func(_ *block.Request, err error) {
		if err == nil {
			x.log.Note(func() { x.hist.Flushed(x.before[id]) })
		}
		end(err)
	}})
}

// left is what one node has after a power cut, opened.
type left struct {
	name       string
	data, meta *replay.Image
	snap       meta.Snapshot
}

var replayNodes = [2]string{"alpha", "beta"}

// cut takes the power from a node.
func (x *tape) cut(p *replay.Player, node int, lost replay.Loss) *left {
	l := &left{name: replayNodes[node], data: p.Cut(x.disks[node].data, lost), meta: p.Cut(x.disks[node].meta, lost)}
	x.cuts++
	_, snap, err := meta.Open(l.meta, meta.External, meta.Identity{Cluster: "c", Resource: "r", Node: l.name})
	if err == nil && len(snap.Repairs) > 0 {
		err = fmt.Errorf("damaged: %v", snap.Repairs)
	}
	if err != nil {
		x.broken(p, fmt.Errorf("%s: %w", l.name, err))
	}
	l.snap = snap
	return l
}

func (x *tape) broken(p *replay.Player, err error) {
	x.t.Helper()
	at, of := p.Position()
	x.t.Fatalf("power cut after %d of %d events: %v", at, of, err)
}

func (l *left) at(sector int) check.Version {
	return check.Version(binary.LittleEndian.Uint64(l.data.Sector(int64(sector))))
}

// marked says what a start would find out of sync.
func (l *left) marked(sector int) bool {
	at := int64(sector) * block.SectorBytes
	hot := l.snap.Super.Flags&meta.Clean == 0 && slices.Contains(l.snap.HotExtents, uint32(at/actlog.ExtentBytes))
	return hot || l.snap.Bitmap.Any(at, block.SectorBytes)
}

// judge is what must hold when both nodes have lost their power.
func (x *tape) judge(p *replay.Player, a, b *left) {
	x.t.Helper()
	whole := (a.snap.Super.Flags|b.snap.Super.Flags)&meta.FullSync != 0
	switch v := genid.Compare(a.snap.Super.Generations, b.snap.Super.Generations); v {
	case genid.Equal, genid.SourceBitmap, genid.TargetBitmap:
	case genid.SourceFull, genid.TargetFull, genid.SourceFullNew, genid.TargetFullNew:
		whole = true
	default:
		x.broken(p, fmt.Errorf("the generations say %s: %s, %s", v, a.snap.Super.Generations, b.snap.Super.Generations))
	}
	copies := [2]*check.Copy{}
	for i, l := range []*left{a, b} {
		copies[i] = &check.Copy{Name: l.name, At: l.at, Marked: l.marked, Whole: whole}
		if !slices.Contains(x.record.InSync, l.name) {
			continue
		}
		created := l.snap.Super.Flags&meta.AssumeClean != 0
		if err := check.InSet(l.name, l.snap.Super.Disk == state.Inconsistent && !created); err != nil {
			x.broken(p, err)
		}
		for _, s := range x.hist.Touched() {
			if err := x.hist.Durable(s, l.at(s)); err != nil {
				x.broken(p, fmt.Errorf("%s, in the in-sync set: %w", l.name, err))
			}
		}
	}
	if err := check.Marks(x.hist.Touched(), copies[0], copies[1]); err != nil {
		x.broken(p, err)
	}
}

// survivor is what must hold of the node that has not lost its power.
func (x *tape) survivor(p *replay.Player, l *left) {
	x.t.Helper()
	if !slices.Contains(x.record.InSync, l.name) {
		return
	}
	for _, s := range x.hist.Touched() {
		if err := x.hist.Check(s, l.at(s)); err != nil {
			x.broken(p, fmt.Errorf("%s survives, in the in-sync set: %w", l.name, err))
		}
	}
}

// everyLoss is up to how many pieces all their losses are tried.
const everyLoss = 5

// cutAll cuts the power at this point in every way.
func (x *tape) cutAll(p *replay.Player, rng *rand.Rand) {
	x.t.Helper()
	for i := range 2 {
		x.survivor(p, x.cut(p, i, replay.LoseNothing))
	}
	both := func(lost replay.Loss) {
		x.t.Helper()
		x.judge(p, x.cut(p, 0, lost), x.cut(p, 1, lost))
	}
	n := p.Pieces(x.disks[0].data, x.disks[0].meta, x.disks[1].data, x.disks[1].meta)
	if n <= everyLoss {
		for mask := range uint64(1) << n {
			both(replay.LoseThese(mask))
		}
		return
	}
	for _, lost := range []replay.Loss{replay.LoseNothing, replay.LoseEverything, replay.LoseAny(rng), replay.LoseAny(rng)} {
		both(lost)
	}
	x.judge(p, x.cut(p, 0, replay.LoseEverything), x.cut(p, 1, replay.LoseNothing))
	x.judge(p, x.cut(p, 0, replay.LoseNothing), x.cut(p, 1, replay.LoseEverything))
}

// goOn starts a pair from what both nodes have left: the two come in line, and
// what was flushed is there.
func (x *tape) goOn(p *replay.Player, rng *rand.Rand) {
	x.t.Helper()
	at, of := p.Position()
	x.t.Run(fmt.Sprintf("goes on after %d of %d", at, of), func(t *testing.T) {
		q := layPair(t)
		q.ledger.rec = x.record
		for i, n := range q.nodes {
			l := x.cut(p, i, replay.LoseAny(rng))
			must(t, os.WriteFile(filepath.Join(n.dir, "disk"), l.data.Bytes(), 0o600))
			must(t, os.WriteFile(filepath.Join(n.dir, "md"), l.meta.Bytes(), 0o600))
		}
		q.start()
		for _, n := range q.nodes {
			n.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 && v.Volumes[0].DirtyBytes == 0 })
		}
		q.equal()
		image, err := os.ReadFile(filepath.Join(q.nodes[0].dir, "disk"))
		must(t, err)
		for _, s := range x.hist.Touched() {
			found := check.Version(binary.LittleEndian.Uint64(image[s*block.SectorBytes:]))
			if err := x.hist.Durable(s, found); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestPowerCutAnywhere(t *testing.T) {
	x := recordPair(t)
	rng := rand.New(rand.NewPCG(uint64(len(x.log.Events())), 0))
	often := 1
	if os.Getenv("HAPAIR_LONG") == "" {
		often = 4
	}
	p := replay.NewPlayer(x.log, x.start)
	for p.Step() {
		if at, _ := p.Position(); at%often == 0 {
			x.cutAll(p, rng)
		}
		if at, of := p.Position(); at%max(of*often/48, 1) == 0 {
			x.goOn(p, rng)
		}
	}
	at, _ := p.Position()
	t.Logf("%d events, power cut %d times at a node", at, x.cuts)
}
