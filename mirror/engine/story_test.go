package engine

import (
	"errors"
	"testing"
	"time"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

const volumeBytes = 64 << 20

// box is one engine and everything it asked for and has not been told about.
// Metadata is durable at once unless hold says otherwise.
type box struct {
	t    *testing.T
	eng  *Engine
	now  time.Duration
	out  []Effect // not consumed yet, in order
	hold map[EffectKind]bool

	super   []Super
	pages   map[int][]byte // of volume 0's bitmap
	size    int64
	room    int64 // of the disks, when they are measured
	ceiling int64 // likewise, of a smaller size
	record  wire.Record
	peer    genid.Set // of the peer's copy, as it last said
	link    uint64
	ids     genid.ID
}

type setup struct {
	volumes int
	slots   int
	super   Super
	record  wire.Record
	hot     []uint32
	size    int64
	pages   map[int][]byte
	held    []EffectKind

	settings Settings
}

func equal() setup {
	return setup{volumes: 1, slots: 8, super: Super{Gen: genid.Set{Current: 77}, Disk: state.UpToDate, Clean: true},
		record: wire.Record{Token: 1, InSync: []string{"alpha", "beta"}}}
}

func newBox(t *testing.T, s setup) *box {
	t.Helper()
	if s.size == 0 {
		s.size = volumeBytes
	}
	b := &box{t: t, hold: map[EffectKind]bool{}, record: s.record, ids: 1000, pages: map[int][]byte{}, size: s.size}
	for _, k := range s.held {
		b.hold[k] = true
	}
	c := Config{Resource: "r", Self: "alpha", Peer: "beta", Record: s.record, Settings: s.settings, NewID: func() genid.ID { b.ids++; return b.ids }}
	for i := range s.volumes {
		log := actlog.New(s.slots)
		for _, e := range s.hot {
			log.Acquire(int64(e)*actlog.ExtentBytes, 1)
			tx, _, _ := log.Prepare(0, func(uint32) bool { return true })
			log.Commit(tx)
		}
		bits := dirty.New(s.size)
		for p, data := range s.pages {
			if err := bits.LoadPage(p, data); err != nil {
				t.Fatal(err)
			}
		}
		c.Volumes = append(c.Volumes, VolumeConfig{Number: uint16(i), Super: s.super, Bitmap: bits, Log: log,
			Geometry: block.Geometry{SizeBytes: s.size, LogicalBlockBytes: 512, PhysicalBlockBytes: 4096, MaxTransferBytes: block.MaxTransferBytes, VolatileCache: true}})
		b.super = append(b.super, s.super)
	}
	b.eng = New(c)
	b.do(Event{Kind: Tick})
	return b
}

// do steps one event and makes durable what the story does not hold back.
func (b *box) do(ev Event) {
	b.t.Helper()
	queue := []Event{ev}
	for len(queue) > 0 {
		ev := queue[0]
		queue = queue[1:]
		for _, f := range b.eng.Step(b.now, &ev, nil) {
			if b.hold[f.Kind] {
				b.out = append(b.out, f)
				continue
			}
			switch f.Kind {
			case WriteActivity, WritePages, WriteSuper, MeasureDisk:
				queue = append(queue, b.durable(f))
			default:
				b.out = append(b.out, f)
			}
		}
	}
}

// durable is the event that says a metadata effect is done.
func (b *box) durable(f Effect) Event {
	switch f.Kind {
	case WriteActivity:
		return Event{Kind: ActivityDone, Volume: f.Volume}
	case MeasureDisk:
		return Event{Kind: Measured, Volume: f.Volume, Room: b.room, Ceiling: b.ceiling}
	case WritePages:
		for i := range len(f.Payload) / dirty.PageBytes {
			b.pages[f.Page+i] = f.Payload[i*dirty.PageBytes:][:dirty.PageBytes]
		}
		return Event{Kind: PagesDone, Volume: f.Volume}
	}
	b.super[f.Volume] = *f.Super
	return Event{Kind: SuperDone, Volume: f.Volume, Version: f.Version}
}

// find returns the first effect of a kind that want accepts, and takes it.
func (b *box) find(kind EffectKind, want func(*Effect) bool) (Effect, bool) {
	for i := range b.out {
		if f := b.out[i]; f.Kind == kind && (want == nil || want(&f)) {
			b.out = append(b.out[:i:i], b.out[i+1:]...)
			return f, true
		}
	}
	return Effect{}, false
}

// findAny is find among all kinds.
func (b *box) findAny(want func(*Effect) bool) (Effect, bool) {
	for i := range b.out {
		if want(&b.out[i]) {
			return b.find(b.out[i].Kind, want)
		}
	}
	return Effect{}, false
}

func (b *box) expect(kind EffectKind) Effect {
	b.t.Helper()
	f, ok := b.find(kind, nil)
	if !ok {
		b.t.Fatalf("no effect of kind %d among %s", kind, b.pending())
	}
	return f
}

func (b *box) none(kind EffectKind) {
	b.t.Helper()
	if f, ok := b.find(kind, nil); ok {
		b.t.Fatalf("unexpected effect: %+v", f)
	}
}

func (b *box) pending() (s string) {
	for _, f := range b.out {
		s += "\n  " + describe(&f)
	}
	return s
}

func describe(f *Effect) string {
	names := [...]string{"", "LocalIO", "PeerSend", "Answer", "WriteActivity", "WritePages", "WriteSuper", "FitSize", "LedgerExclude", "LedgerInclude", "LedgerGiveUp", "LedgerLeave",
		"DropLink", "StandAlone", "RestLink", "AbandonDisk", "Deposed", "Reply", "Note", "Problem", "Digest", "SplitVictim", "Proven", "MeasureDisk", "RemakeMeta"}
	s := names[f.Kind]
	switch f.Kind {
	case PeerSend:
		s += " " + f.Message.Kind.String()
	case LocalIO, Answer:
		s += " " + f.Request.String()
	case Note, Problem:
		s += " " + f.Text
	}
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	return s
}

// message is the next frame of a kind on its way to the peer.
func (b *box) message(kind wire.Kind) wire.Message {
	b.t.Helper()
	f, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == kind })
	if !ok {
		b.t.Fatalf("no %s is sent; pending:%s", kind, b.pending())
	}
	return f.Message
}

func (b *box) receive(m wire.Message) {
	b.t.Helper()
	b.do(Event{Kind: Received, Session: b.link, Message: &m})
}

// localDone ends the oldest request at the local disk.
func (b *box) localDone(err error) *block.Request {
	b.t.Helper()
	f := b.expect(LocalIO)
	if f.Request.Op == block.Read {
		clear(f.Request.Data) // the disk of a box is all zeroes
	}
	b.do(Event{Kind: LocalDone, Request: f.Request, Err: err})
	return f.Request
}

func (b *box) linkUp() {
	b.link++
	b.do(Event{Kind: LinkUp, Session: b.link, Path: "crossover"})
}

func (b *box) linkDown() {
	b.do(Event{Kind: LinkDown, Session: b.link, Err: errors.New("cable pulled")})
}

// greet brings a session up against a peer that says the same of itself, but
// for what change makes of it.
func (b *box) greet(change func(*wire.HelloBody)) {
	b.t.Helper()
	b.linkUp()
	b.message(wire.Hello)
	b.receive(b.peerHello(wire.Hello, change))
}

func (b *box) peerHello(kind wire.Kind, change func(*wire.HelloBody)) wire.Message {
	b.t.Helper()
	h := &wire.HelloBody{Resource: "r", Node: "beta", Role: state.Secondary, Record: b.record}
	for i, v := range b.eng.vols {
		h.Volumes = append(h.Volumes, wire.HelloVolume{Number: uint16(i), SizeBytes: v.geo.SizeBytes, LogicalBlockBytes: 512, Disk: state.UpToDate, Gen: v.gen.Words()})
	}
	if change != nil {
		change(h)
	}
	b.peer = genid.FromWords(h.Volumes[0].Gen)
	data, err := wire.AppendHello(nil, h)
	if err != nil {
		b.t.Fatal(err)
	}
	return wire.Message{Kind: kind, Token: b.record.Tenure, Data: data}
}

// targetReady is the peer's answer to SyncStart: Inconsistent, under the SyncID.
func (b *box) targetReady() {
	b.t.Helper()
	told := b.message(wire.State)
	b.message(wire.SyncStart)
	b.peer = b.peer.Begin(gens(b.t, &told))
	b.receive(b.peerHello(wire.State, b.asTarget))
	b.receive(wire.Message{Kind: wire.BitmapDone})
}

// asTarget makes a hello that of a copy which is being filled.
func (b *box) asTarget(h *wire.HelloBody) {
	for i := range h.Volumes {
		h.Volumes[i].Disk, h.Volumes[i].Gen = state.Inconsistent, b.peer.Words()
	}
}

// promote makes the box Primary with a lease that does not run out.
func (b *box) promote() {
	b.t.Helper()
	b.record.Token++
	b.record.Tenure, b.record.Primary = b.record.Token, "alpha"
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.do(Event{Kind: Promote, Tenure: b.record.Tenure})
	if f := b.expect(Reply); f.Err != nil {
		b.t.Fatal(f.Err)
	}
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure, Until: time.Hour})
}

// ledger decides the change that is asked for, as the real one would.
func (b *box) ledger() {
	b.t.Helper()
	b.missed()
	out := func(f *Effect) bool {
		return f.Kind == LedgerExclude || f.Kind == LedgerGiveUp || f.Kind == LedgerLeave
	}
	if f, ok := b.findAny(out); ok {
		if in := without(b.record.InSync, f.Node); len(in) < len(b.record.InSync) {
			b.record.Token++
			b.record.InSync = in
		}
	} else {
		f := b.expect(LedgerInclude)
		b.record.Token++
		b.record.InSync = append(without(b.record.InSync, f.Node), f.Node)
	}
	b.do(Event{Kind: LedgerDone, Record: b.record})
}

// missed lets the time pass in which the peer might have come back.
func (b *box) missed() {
	if b.eng.missing || b.eng.session.proven > 0 {
		b.now += excludeAfter
		b.do(Event{Kind: Tick})
	}
}

func without(nodes []string, node string) (out []string) {
	for _, n := range nodes {
		if n != node {
			out = append(out, n)
		}
	}
	return out
}

func (b *box) submit(op block.Op, offset, length int64) *block.Request {
	r := &block.Request{Op: op, Offset: offset, Length: length}
	if op == block.Write || op == block.Read {
		r.Data = make([]byte, length)
	}
	b.do(Event{Kind: Submitted, Request: r})
	return r
}

// ack is the peer's word that it did what m asked.
func (b *box) ack(m wire.Message) {
	b.t.Helper()
	b.receive(wire.Message{Kind: wire.Ack, ID: m.ID})
}

func (b *box) answered() error {
	b.t.Helper()
	return b.expect(Answer).Err
}

// ahead is a Primary that has written a block without its peer.
func ahead(t *testing.T) *box {
	t.Helper()
	b := newBox(t, equal())
	b.promote()
	b.submit(block.Write, 0, 4096)
	b.ledger()
	b.localDone(nil)
	return b
}

// behind is what a peer says that has not gone on since equal.
func behind(h *wire.HelloBody) { h.Volumes[0].Gen = genid.Set{Current: 77}.Words() }

// mirrored makes the box a connected Primary in Established.
func mirrored(t *testing.T, s setup) *box {
	t.Helper()
	b := newBox(t, s)
	b.greet(nil)
	b.promote()
	if got := b.eng.View().Replication; got != state.Established {
		t.Fatalf("replication is %s", got)
	}
	b.out = nil
	return b
}

// syncing makes the box a Primary that has sent its last chunk and waits for
// the ack of SyncDone.
func syncing(t *testing.T) (*box, wire.Message) {
	t.Helper()
	b := filled(t)
	b.bothFlush()
	return b, b.message(wire.SyncDone)
}

// filled makes the box a Primary whose target has flushed its last chunk.
func filled(t *testing.T) *box {
	t.Helper()
	b := ahead(t)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.greet(behind)
	b.ledger() // confirms that the peer is not in the set
	b.targetReady()
	b.localDone(nil) // the chunk is read
	b.ack(b.message(wire.WriteZeroes))
	b.ack(b.message(wire.Flush))
	return b
}

// bothFlush ends the flush of both copies that ends a resync.
func (b *box) bothFlush() {
	b.t.Helper()
	f, ok := b.find(LocalIO, func(f *Effect) bool { return f.Request.Op == block.Flush })
	if !ok {
		b.t.Fatalf("the source does not flush; pending:%s", b.pending())
	}
	b.do(Event{Kind: LocalDone, Request: f.Request})
	b.none(LedgerInclude)
	b.ack(b.message(wire.Flush))
}
