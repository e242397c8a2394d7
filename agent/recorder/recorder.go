// Package recorder is the flight recorder of an agent: what it told happened is
// kept, with a hybrid logical time, in memory, on disk, and at the other nodes
// of the cluster, so that any one of them tells the story of all.
//
//  1. story        time, entries, their order: pure
//  2. recorder.go  what is kept in memory; nobody waits here for a disk or a peer
//  3. disk.go      a ring of files for each node, written by a goroutine of its own
//  4. follow.go    hears what the others keep
//  5. serve.go     tells them what this one does
//  6. look.go      the whole, to whoever asks
package recorder

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/agent/recorder/story"
)

// Bounds of what is kept.
const (
	// KeptEntries of each node are kept in memory: some days of a quiet pair,
	// about 3 MB.
	KeptEntries = 8192
	// Arrivals may wait for a node that follows slowly; it then has a gap.
	Arrivals = 16384
)

// Config is what New needs.
type Config struct {
	Self   string
	Others []string // the other nodes, a witness too
	Dir    string   // this recorder's alone
	Now    func() time.Time
	Log    *zap.Logger
	// Dial opens a stream to another node's [Recorder.Serve].
	Dial func(ctx context.Context, node string) (net.Conn, error)
	// Foreign, if set, reports an error of Dial that says the other node's release
	// keeps no record: it is asked again seldom.
	Foreign func(error) bool
	// Trouble, if set, is told that the record's disk fails, or works again. It is
	// called from the recorder's own goroutine, and may call Add.
	Trouble func(text string)
}

// Recorder keeps what happened. Its methods are safe for concurrent use, and
// but for Close none of them waits for a disk or for another node.
type Recorder struct {
	cfg   Config
	log   *zap.Logger
	life  uint64
	began time.Time // of this process; carries a monotonic clock
	disk  *disk

	ctx    context.Context // ends when Close begins
	cancel context.CancelFunc
	wg     sync.WaitGroup // those who follow

	mu struct {
		sync.Mutex
		closed   bool
		last     story.Stamp // the greatest given or heard
		seq      uint64
		seen     story.Seen
		kept     map[string][]*story.Entry // by node, in order
		arrivals []*story.Entry            // as they came
		base     uint64                    // how many came before arrivals[0]
		grown    chan struct{}             // closed when something arrives
		sources  map[string]*source
	}
}

// New returns a recorder that keeps what is added, and begins to read what an
// earlier life left on disk. It makes nothing of an error of the disk but a
// word in [Story.Disk].
func New(cfg Config) (*Recorder, error) {
	r, err := build(cfg)
	if err == nil {
		go r.disk.run()
	}
	return r, err
}

// build leaves the disk alone.
func build(cfg Config) (*Recorder, error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("flight recorder: name this life: %w", err)
	}
	r := &Recorder{cfg: cfg, log: cfg.Log, began: time.Now(), life: binary.LittleEndian.Uint64(random[:])>>11 | 1}
	if r.log == nil {
		r.log = zap.NewNop()
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.mu.kept = map[string][]*story.Entry{}
	r.mu.grown = make(chan struct{})
	r.mu.sources = map[string]*source{}
	for _, node := range cfg.Others {
		r.mu.sources[node] = newSource(cfg.Now())
	}
	r.disk = newDisk(r)
	return r, nil
}

// Start begins to follow the other nodes.
func (r *Recorder) Start() {
	for _, node := range r.cfg.Others {
		r.wg.Go(func() { r.follow(node) })
	}
}

// Follow has another node followed that was none of the others of New; one that is
// already is let be. It is called after Start.
func (r *Recorder) Follow(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed || r.ctx.Err() != nil || node == r.cfg.Self || r.mu.sources[node] != nil {
		return
	}
	r.mu.sources[node] = newSource(r.cfg.Now())
	r.wg.Go(func() { r.follow(node) })
}

// AwaitLoaded waits until what earlier lives left was read, or ctx ends: so that
// what is recorded from then on is later by its stamp, too, if the clock went back.
func (r *Recorder) AwaitLoaded(ctx context.Context) error {
	select {
	case <-r.disk.loaded:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flight recorder: read %s: %w", r.cfg.Dir, ctx.Err())
	}
}

// Add records that something happened on this node at t.
func (r *Recorder) Add(t time.Time, kind, resource, text string, fields map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.seq++
	r.mu.last = story.Next(r.mu.last, t)
	e := &story.Entry{Stamp: r.mu.last, Wall: t.UnixNano(), Node: r.cfg.Self, Life: r.life, Seq: r.mu.seq, Kind: kind, Resource: resource, Text: text, Fields: fields}
	e.Clip()
	r.mu.seen.Add(e.Node, e.Life, e.Seq)
	r.keep(e)
	r.write(e)
}

// Stamp is what to say to another node: whatever was recorded here until now is
// not later.
func (r *Recorder) Stamp() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.last = max(r.mu.last, story.At(r.cfg.Now()))
	return uint64(r.mu.last)
}

// Heard takes what another node's Stamp said: whatever is recorded here from now
// on is later.
func (r *Recorder) Heard(stamp uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.last = story.Heard(r.mu.last, story.Stamp(stamp))
}

// learn keeps an entry of another node, or of an earlier life of this one;
// false when it was known, or is nobody's.
func (r *Recorder) learn(e *story.Entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.foreign(e) || !r.mu.seen.Add(e.Node, e.Life, e.Seq) {
		return false
	}
	r.mu.last = story.Heard(r.mu.last, e.Stamp)
	if s := r.mu.sources[e.Node]; s != nil {
		e.Skew = int64(s.skew)
	}
	r.keep(e)
	r.write(e)
	return true
}

// foreign reports an entry of the cluster that was not made by this very life. mu is held.
func (r *Recorder) foreign(e *story.Entry) bool {
	if e.Node == r.cfg.Self {
		return e.Life != r.life
	}
	return r.mu.sources[e.Node] != nil
}

// restore takes back what was on disk.
func (r *Recorder) restore(entries []story.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range entries {
		e := &entries[i]
		if r.foreign(e) && r.mu.seen.Add(e.Node, e.Life, e.Seq) {
			r.mu.last = story.Heard(r.mu.last, e.Stamp)
			r.keep(e)
		}
	}
}

// keep puts an entry into memory, at its place; the oldest of its node makes
// room. mu is held.
func (r *Recorder) keep(e *story.Entry) {
	list := r.mu.kept[e.Node]
	at := len(list)
	for at > 0 && list[at-1].Stamp > e.Stamp {
		at--
	}
	list = slices.Insert(list, at, e)
	if len(list) > KeptEntries {
		list[0] = nil
		list = list[1:]
	}
	r.mu.kept[e.Node] = list
	r.mu.arrivals = append(r.mu.arrivals, e)
	if over := len(r.mu.arrivals) - Arrivals; over > 0 {
		clear(r.mu.arrivals[:over])
		r.mu.arrivals, r.mu.base = r.mu.arrivals[over:], r.mu.base+uint64(over)
	}
	close(r.mu.grown)
	r.mu.grown = make(chan struct{})
}

// write hands an entry to the disk, which may be busy or gone. mu is held, so
// that they come in order.
func (r *Recorder) write(e *story.Entry) {
	if !r.mu.closed {
		r.disk.put(e)
	}
}

// Close ends the following, and waits for what is on its way to the disk, until
// ctx ends.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	r.cancel() // nobody begins to follow after it
	r.mu.Unlock()
	r.wg.Wait()
	r.mu.Lock()
	again := r.mu.closed
	r.mu.closed = true
	r.mu.Unlock()
	if !again {
		close(r.disk.in)
	}
	select {
	case <-r.disk.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flight recorder: %s takes nothing: %d entries are not written", r.cfg.Dir, len(r.disk.in))
	}
}
