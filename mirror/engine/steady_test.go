package engine

import (
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// steady drives an engine with reused events and effects, as the resource does.
type steady struct {
	b   *box
	out []Effect
	ev  Event
}

func (s *steady) step(ev Event) []Effect {
	s.ev = ev
	s.out = s.b.eng.Step(s.b.now, &s.ev, s.out[:0])
	return s.out
}

// pick is the request and the id of the frame among effects.
func pick(effects []Effect) (disk *block.Request, id uint64) {
	for i := range effects {
		switch f := &effects[i]; f.Kind {
		case LocalIO:
			disk = f.Request
		case PeerSend:
			id = f.Message.ID
		}
	}
	return disk, id
}

func TestPrimaryWritesWithoutAllocating(t *testing.T) {
	s := &steady{b: mirrored(t, equal()), out: make([]Effect, 0, 16)}
	s.b.submit(block.Write, 0, 4096) // makes the extent hot
	s.b.localDone(nil)
	s.b.ack(s.b.message(wire.Write))
	r, m, answers := &block.Request{Op: block.Write, Length: 4096, Data: make([]byte, 4096)}, &wire.Message{Kind: wire.Ack}, 0
	allocs := testing.AllocsPerRun(1000, func() {
		disk, id := pick(s.step(Event{Kind: Submitted, Request: r}))
		s.step(Event{Kind: LocalDone, Request: disk})
		m.ID = id
		for _, f := range s.step(Event{Kind: Received, Session: s.b.link, Message: m}) {
			if f.Kind == Answer && f.Err == nil {
				answers++
			}
		}
	})
	if allocs != 0 || answers != 1001 {
		t.Fatalf("%v allocations per write, %d answers", allocs, answers)
	}
}

// Answered early, from a copy, it costs no allocation either.
func TestPrimaryAnswersEarlyWithoutAllocating(t *testing.T) {
	for _, p := range []state.Protocol{state.ProtocolA, state.ProtocolB} {
		s := &steady{b: replicated(t, p), out: make([]Effect, 0, 16)}
		_, first := s.b.write(0, 1) // makes the extent hot
		s.b.localDone(nil)
		s.b.ack(first)
		r, m, early := &block.Request{Op: block.Write, Length: 4096, Data: make([]byte, 4096)}, &wire.Message{}, 0
		allocs := testing.AllocsPerRun(1000, func() {
			disk, id := pick(s.step(Event{Kind: Submitted, Request: r}))
			for i := range s.step(Event{Kind: LocalDone, Request: disk}) {
				early += answeredIn(&s.out[i])
			}
			for _, flags := range []wire.Flags{wire.Memory, 0} {
				*m = wire.Message{Kind: wire.Ack, ID: id, Flags: flags}
				for i := range s.step(Event{Kind: Received, Session: s.b.link, Message: m}) {
					if flags != 0 {
						early += answeredIn(&s.out[i])
					}
				}
			}
		})
		if allocs != 0 || early != 1001 {
			t.Errorf("protocol %s: %v allocations per write, %d answered early", p, allocs, early)
		}
	}
}

func answeredIn(f *Effect) int {
	if f.Kind == Answer && f.Err == nil {
		return 1
	}
	return 0
}

func TestSecondaryTakesWritesWithoutAllocating(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.out = nil
	s, acks := &steady{b: b, out: make([]Effect, 0, 16)}, 0
	m := &wire.Message{}
	allocs := testing.AllocsPerRun(1000, func() {
		buf := block.GetBuffer(4096)
		*m = wire.Message{Kind: wire.Write, ID: 5, Token: 1, Length: 4096, Data: buf.Bytes(4096), Buffer: buf}
		disk, _ := pick(s.step(Event{Kind: Received, Session: b.link, Message: m}))
		for _, f := range s.step(Event{Kind: LocalDone, Request: disk}) {
			if f.Kind == PeerSend && f.Message.Kind == wire.Ack {
				acks++
			}
		}
	})
	if allocs != 0 || acks != 1001 {
		t.Fatalf("%v allocations per write, %d acks", allocs, acks)
	}
}

// crowd writes 4 KiB blocks one after the other, each answered, until admission
// pauses; it returns how many.
func (b *box) crowd() (written int) {
	for written < 2*unflushedMax {
		b.submit(block.Write, int64(written%(volumeBytes/4096))*4096, 4096)
		f, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Write })
		if !ok {
			break
		}
		written++
		d, _ := b.find(LocalIO, func(f *Effect) bool { return f.Request.Op == block.Write })
		b.do(Event{Kind: LocalDone, Request: d.Request})
		b.ack(f.Message)
		b.find(Answer, nil)
	}
	return written
}

// However many writes are answered while no flush comes back, what is
// remembered of them stays bounded, and nothing is forgotten (R6).
func TestUnflushedWritesAreBoundedAndBecomeDirty(t *testing.T) {
	s := equal()
	s.slots = 32
	b := mirrored(t, s)
	v, written := b.eng.vols[0], b.crowd()
	if written < unflushedMax/2 || written > unflushedMax || v.unflushed.n != written {
		t.Fatalf("%d written, %d remembered, the limit is %d", written, v.unflushed.n, unflushedMax)
	}
	b.linkDown()
	if got := v.bits.Count(); got < int64(written) {
		t.Fatalf("%d unflushed writes, %d blocks dirty", written, got)
	}
}

// The flush that was asked for at half the bound lets writes go on.
func TestFlushLetsCrowdedWritesGoOn(t *testing.T) {
	s := equal()
	s.slots = 32
	b := mirrored(t, s)
	b.crowd()
	b.ack(b.message(wire.Flush))
	b.localDone(nil)
	b.message(wire.Write) // the one that was held
}

// More requests than the engine works on at once wait, in order, and all are
// answered.
func TestBacklog(t *testing.T) {
	b := mirrored(t, equal())
	const n = applicationOpsMax + 50
	for i := range n {
		b.submit(block.Write, int64(i)*4096, 4096)
	}
	if w := b.eng.View(); w.InFlight != applicationOpsMax || w.Waiting != 50 {
		t.Fatalf("%d in flight, %d wait", w.InFlight, w.Waiting)
	}
	for i := range n {
		m := b.message(wire.Write)
		if m.Offset != uint64(i)*4096 {
			t.Fatalf("write %d goes to %d", i, m.Offset)
		}
		b.localDone(nil)
		b.ack(m)
		if err := b.answered(); err != nil {
			t.Fatal(err)
		}
	}
	if free := len(b.eng.pool.free); free != opsMax {
		t.Fatalf("%d of %d ops came back", free, opsMax)
	}
}
