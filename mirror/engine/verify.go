package engine

import (
	"fmt"
	"time"

	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// An online verify, from the node that drives it: a chunk is read here while
// the peer reads it there, both are digested, block by block -> what differs is
// looked at again with its range locked, so that a write in flight is no
// difference -> what differs even so is marked, durably -> it is reported and,
// with Repair, written at the peer, which flushes it before the mark goes.
//
//	verify.go        the run: start, stop, pace, where it is
//	verifycheck.go   one look at one range
//	verifyrepair.go  what comes of a difference
//	verifymend.go    what cannot be read here
//	verifyanswer.go  the other side

// VerifyState is what a verify does.
type VerifyState uint8

// The states.
const (
	VerifyNone    VerifyState = iota // there was none since attach
	VerifyRunning                    // or waits: VerifyView.Waits says for what
	VerifyStopped                    // by the operator; it can be resumed
	VerifyDone
	VerifyFailed // VerifyView.Because says why
)

// String returns the word for the state.
func (s VerifyState) String() string {
	return [...]string{"none", "running", "stopped", "done", "failed"}[s]
}

// VerifyOrder is what a verify is to do.
type VerifyOrder struct {
	Volume int   // index, or AllVolumes
	Repair bool  // write what differs from the Primary to its peer, and here what cannot be read
	Rate   int64 // bytes per second at most; 0: what the applications leave
	// Resume goes on at From instead of at the beginning.
	Resume bool
	From   VerifyPosition
}

// VerifyPosition is where a verify is: everything before it has been compared.
type VerifyPosition struct {
	Volume int // index
	Offset int64
}

// AllVolumes stands for every volume of a resource.
const AllVolumes = -1

// verify is the latest run. It outlives sessions.
type verify struct {
	run    uint64 // counts runs; a check of an earlier one proves nothing
	round  uint64 // changes when what is in flight proves nothing any more
	state  VerifyState
	order  VerifyOrder
	why    string // VerifyFailed
	volume int    // that is being compared
	cursor int64  // next chunk
	again  []look // to be looked at before the next chunk
	rest   time.Duration

	unlocked opList   // checks that hold no range
	flight   int      // checks in flight, also those that hold one
	mending  int      // blocks that are being fetched from the peer
	flush    *op      // of the peer, after repairs
	written  []repair // written at the peer, not known to be flushed there
	stopping bool     // VerifyStop is to be answered

	found  findings
	proven int64 // of the volume: regions up to here have been told
	credit int64 // bytes that may be read now
	filled time.Duration
	rate   rate
}

// look is a range that is to be compared.
type look struct {
	span
	locked bool
}

// verifyEvent starts or stops a run.
func (e *Engine) verifyEvent(ev *Event) {
	var err error
	if ev.Kind == Verify {
		err = e.verifyStart(ev.Verify)
	} else {
		err = e.verifyStop()
	}
	if ev.Kind == Verify || err != nil {
		e.emit(Effect{Kind: Reply, Of: ev.Kind, Err: err})
	}
	e.pumpVerify()
}

// atRest: nothing of a run is in flight any more, here or at the peer.
func (x *verify) atRest() bool {
	return x.flight+x.mending == 0 && len(x.written) == 0 && x.flush == nil
}

func (e *Engine) verifyStart(o VerifyOrder) error {
	x := &e.verify
	if x.state == VerifyRunning || !x.atRest() {
		return fmt.Errorf("a verify is running: %w", ErrBadState)
	}
	if e.resize.runs() {
		return fmt.Errorf("a resize is running: %w", ErrBadState)
	}
	if why := e.verifyWaits(o.Repair); why != "" {
		return fmt.Errorf("%s: %w", why, ErrBadState)
	}
	first := max(o.Volume, 0)
	if o.Resume && first <= o.From.Volume && (o.Volume == AllVolumes || o.From.Volume == o.Volume) && o.From.Volume < len(e.vols) &&
		o.From.Offset <= e.vols[o.From.Volume].geo.SizeBytes { // it may have become smaller
		first = o.From.Volume
	} else {
		o.From.Offset = 0
	}
	begin := o.From.Offset - o.From.Offset%RegionBytes(e.vols[first].geo.SizeBytes)
	x.run++
	x.state, x.order, x.why, x.rest = VerifyRunning, o, "", 0
	x.volume, x.cursor, x.proven, x.again = first, begin, begin, nil
	x.found, x.credit, x.filled, x.rate = findings{}, 0, e.now, rate{}
	what := "compares"
	if o.Repair {
		what = "compares, and repairs at " + e.peer
	}
	e.noteOn(OnVerify, fmt.Sprintf("verify begins: %s %d bytes, from byte %d of volume %d on", what, e.verifyTotal()-e.verifyBefore()-begin, begin, e.vols[first].num))
	return nil
}

func (e *Engine) verifyStop() error {
	x := &e.verify
	if x.state != VerifyRunning {
		return fmt.Errorf("no verify is running: %w", ErrBadState)
	}
	x.cursor, x.again = x.reached(e), nil
	x.run++
	x.state, x.stopping = VerifyStopped, true
	e.noteOn(OnVerify, fmt.Sprintf("verify was stopped at byte %d of volume %d; %s", x.cursor, e.vols[x.volume].num, x.found.text(e.peer)))
	return nil
}

// verifyWaits says why nothing can be compared now; "" when it can.
func (e *Engine) verifyWaits(repair bool) string {
	s := &e.session
	switch {
	case s.phase != agreed || s.closing || s.theirs == nil:
		return e.peer + " is not connected"
	case s.repl != state.Established:
		return fmt.Sprintf("the copies are not in line: replication is %s", s.repl)
	case s.theirs.Features&wire.FeatureVerify == 0:
		return e.peer + " runs a release that cannot verify"
	case e.anyFailed() || !countsAsCurrent(s.theirs):
		return "a copy is not UpToDate"
	case !e.inSync(e.self) || !e.inSync(e.peer):
		return "the ledger does not call both copies current"
	case s.theirs.Role == state.Primary && (e.role != state.Primary || !e.hasLease()): // who holds the lease knows better than the peer's last word
		return fmt.Sprintf("%s is Primary, and a verify is led by the Primary", e.peer)
	case e.role == state.Primary && !e.hasLease():
		return "this node holds no lease"
	case repair && e.role != state.Primary:
		return "no node is Primary: which copy is right is not proven by what an application sees"
	case e.control.busy() || e.detaching:
		return "another command is running"
	case e.now < e.verify.rest:
		return e.peer + " could not answer"
	}
	return ""
}

// pumpVerify keeps chunks in flight, then moves on: next volume, or the end.
func (e *Engine) pumpVerify() {
	x := &e.verify
	e.flushRepairs()
	if x.atRest() {
		if x.stopping {
			x.stopping = false
			e.emit(Effect{Kind: Reply, Of: VerifyStop})
		}
		e.controlProgress()
	}
	if x.state != VerifyRunning || e.verifyWaits(x.order.Repair) != "" {
		return
	}
	e.fillCredit()
	for {
		for x.flight+x.mending < e.verifyDepth() && e.nextCheck() {
		}
		e.provenUpTo(x.reached(e))
		v := e.vols[x.volume]
		if x.flight+x.mending > 0 || len(x.again)+len(x.written) > 0 || x.cursor < v.geo.SizeBytes || !e.marksSaved() {
			return
		}
		if x.order.Volume != AllVolumes || x.volume+1 == len(e.vols) {
			e.verifyEnds(VerifyDone, "")
			return
		}
		x.volume, x.cursor, x.proven = x.volume+1, 0, 0
	}
}

func (e *Engine) verifyEnds(s VerifyState, why string) {
	x := &e.verify
	x.state, x.why, x.again = s, why, nil
	x.run++
	text := "verify is complete: " + x.found.text(e.peer)
	if s == VerifyFailed {
		text = fmt.Sprintf("verify ends at byte %d of volume %d, because %s; %s", x.cursor, e.vols[x.volume].num, why, x.found.text(e.peer))
	}
	if s == VerifyFailed || x.found.open() > 0 {
		e.problem(text)
		return
	}
	e.noteOn(OnVerify, text)
}

// nextCheck starts the next check, if there is one and room for it.
func (e *Engine) nextCheck() bool {
	x := &e.verify
	v := e.vols[x.volume]
	if len(x.again) == 0 && (x.cursor >= v.geo.SizeBytes || x.paced(e) && x.credit <= 0) {
		return false
	}
	o := e.pool.get(opVerify, v)
	if o == nil {
		return false // the next tick asks again
	}
	var l look
	if len(x.again) > 0 {
		l = x.again[0]
		x.again = append(x.again[:0], x.again[1:]...)
	} else {
		l = look{span: span{x.cursor, min(verifyChunkBytes, v.geo.SizeBytes-x.cursor)}}
		x.cursor += l.length
		x.credit -= l.length
	}
	x.flight++
	o.session, o.check = e.session.id, &check{look: l, run: x.run, round: x.round}
	o.reads(l.offset, l.length)
	if l.locked {
		e.enter(o)
	} else {
		e.beginCheck(o)
	}
	return true
}

// busy reports whether an application uses the volumes.
func (e *Engine) busy() bool { return e.appOps > 0 || e.lastApp > 0 && e.now-e.lastApp < verifyQuiet }

// verifyDepth is how many checks may be in flight: one beside an application.
func (e *Engine) verifyDepth() int {
	if e.busy() {
		return 1
	}
	return verifyOpsMax
}

// limit is how many bytes per second may be compared; 0 is no limit.
func (x *verify) limit(e *Engine) int64 {
	if e.busy() && (x.order.Rate == 0 || x.order.Rate > verifyBusyRate) {
		return verifyBusyRate
	}
	return x.order.Rate
}

func (x *verify) paced(e *Engine) bool { return x.limit(e) > 0 }

func (e *Engine) fillCredit() {
	x := &e.verify
	limit := x.limit(e)
	x.credit += int64(float64(limit) * (e.now - x.filled).Seconds())
	x.filled = e.now
	x.credit = min(x.credit, max(limit/8, 1))
}

func (e *Engine) verifyTick() {
	x := &e.verify
	if x.state == VerifyRunning {
		done, _ := e.verifyDone()
		x.rate.sample(e.now, done)
	}
	e.pumpVerify()
}

// reached is how far the volume has been compared without a gap.
func (x *verify) reached(e *Engine) int64 {
	to := x.cursor
	for _, l := range x.again {
		to = min(to, l.offset)
	}
	for _, m := range x.written {
		to = min(to, m.offset)
	}
	v := e.vols[x.volume]
	for _, l := range []*opList{&x.unlocked, &v.active, &v.waiting} {
		for o := l.head; o != nil; o = o.next {
			if o.kind == opVerify && !e.staleCheck(o) || o.heals && o.mark == x.run {
				to = min(to, o.disk.Offset)
			}
		}
	}
	return to
}

// provenUpTo tells which regions have been compared and hold nothing that
// differs or could not be read.
func (e *Engine) provenUpTo(to int64) {
	x := &e.verify
	v := e.vols[x.volume]
	for x.proven < to {
		length := min(RegionBytes(v.geo.SizeBytes), v.geo.SizeBytes-x.proven)
		if x.proven+length > to {
			return
		}
		if !v.bits.Any(x.proven, length) && !x.found.within(v.num, x.proven, length) {
			e.emit(Effect{Kind: Proven, Volume: v.index, Offset: x.proven, Size: length})
		}
		x.proven += length
	}
}

// RegionBytes is the unit in which it is remembered when copies were equal: at
// most 256 regions to a volume, none below 64 MiB.
func RegionBytes(size int64) int64 {
	unit := int64(64 << 20)
	for unit*256 < size {
		unit *= 2
	}
	return unit
}

// verifyDone is how much has been compared, and of how much.
func (e *Engine) verifyDone() (done, total int64) {
	if e.verify.state == VerifyNone {
		return 0, 0
	}
	return e.verifyBefore() + e.verify.reached(e), e.verifyTotal()
}

// verifyBefore is what the volumes have that come before the present one.
func (e *Engine) verifyBefore() (done int64) {
	for i, v := range e.vols {
		if e.verify.order.Volume == AllVolumes && i < e.verify.volume {
			done += v.geo.SizeBytes
		}
	}
	return done
}

func (e *Engine) verifyTotal() (total int64) {
	for i, v := range e.vols {
		if o := e.verify.order.Volume; o == AllVolumes || o == i {
			total += v.geo.SizeBytes
		}
	}
	return total
}
