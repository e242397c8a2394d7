package engine

import (
	"fmt"
	"slices"

	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// tryHello sends our hello once nothing of an earlier session can still change
// what it says: no write of the peer at our disk, no undecided ledger change.
func (e *Engine) tryHello() {
	if e.session.phase != greeting || e.session.sent || !e.quiet() || e.unfinished() {
		return
	}
	e.session.sent = true
	e.session.mine = e.hello()
	e.sendHello(wire.Hello, e.session.mine)
	if e.session.greeted {
		e.decide()
	}
}

func (e *Engine) quiet() bool {
	atDisk := e.peerOps > 0 || e.role == state.Secondary && e.fillAtDisk() || e.fitting()
	undecided := e.ledger.inFlight || e.excluding || e.minting || e.forward.leaving || len(e.afterSup) > 0
	leaving := e.control.busy() || e.deposed || e.detaching || e.session.closing
	return !atDisk && !undecided && !leaving && !e.measuring()
}

// features are those that this release has.
const features = wire.FeatureRead | wire.FeatureVerify | wire.FeatureResize | wire.FeatureProtocols | wire.FeatureSplit

// hello says what this node is. Of the generations it says what is durable: the
// peer builds on it, and a crash must not take it back.
func (e *Engine) hello() *wire.HelloBody {
	h := &wire.HelloBody{Resource: e.name, Node: e.self, Release: e.version, Protocol: e.set.Protocol, Features: features, Role: e.role, Suspect: e.suspect, Record: e.record, SyncPaused: e.session.repl == state.PausedSyncS, Split: e.splitHello()}
	for _, v := range e.vols {
		h.LastPrimary = h.LastPrimary || v.last
		h.Volumes = append(h.Volumes, wire.HelloVolume{
			Number: v.num, SizeBytes: v.geo.SizeBytes, LogicalBlockBytes: uint32(v.geo.LogicalBlockBytes), Disk: v.disk,
			Gen: v.super.gen.Words(), DirtyBlocks: uint64(v.bits.Count()), AssumeClean: v.assume, FullSync: v.full,
		})
	}
	e.tellResize(h)
	return h
}

func (e *Engine) sendHello(kind wire.Kind, h *wire.HelloBody) {
	data, err := wire.AppendHello(nil, h)
	if err != nil {
		e.dropSession(fmt.Errorf("our own hello: %w", err))
		return
	}
	e.send(wire.Message{Kind: kind, Token: e.writerToken(), Data: data})
}

// sendState tells a connected peer what changed here.
func (e *Engine) sendState() {
	if (e.session.phase == preparing || e.session.phase == agreed) && !e.session.closing {
		e.sendHello(wire.State, e.hello())
	}
}

func (e *Engine) parseHello(m *wire.Message) *wire.HelloBody {
	h, err := wire.ParseHello(m.Data)
	if err == nil && (h.Resource != e.name || h.Node != e.peer) {
		err = fmt.Errorf("the hello of %s for resource %s, expected %s for %s: %w", h.Node, h.Resource, e.peer, e.name, ErrBadState)
	}
	if err != nil {
		e.refuseSession(&RefusedError{Status: wire.BadMessage, Text: err.Error()})
		return nil
	}
	return h
}

func (e *Engine) onHello(m *wire.Message) {
	h := e.parseHello(m)
	if h == nil {
		return
	}
	if e.session.phase != greeting || e.session.greeted {
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: "a second hello in one session"})
		return
	}
	e.session.greeted, e.session.theirs = true, h
	e.forward.able = h.Features&wire.FeatureRead != 0
	if e.session.sent {
		e.decide()
	} else {
		e.tryHello()
	}
}

func (e *Engine) onState(m *wire.Message) {
	h := e.parseHello(m)
	if h == nil || !e.session.greeted {
		return
	}
	e.session.theirs = h
	e.alike = e.alike || e.handedOver()
	e.followSource(h)
	e.peerResize(&h.Resize)
	e.drainHeld()
}

// followSource keeps the target's view of the resync: the source says what is
// still dirty, and whether it pauses.
func (e *Engine) followSource(h *wire.HelloBody) {
	s := &e.session
	if s.repl != state.SyncTarget && s.repl != state.PausedSyncT {
		return
	}
	s.repl = state.SyncTarget
	if h.SyncPaused {
		s.repl = state.PausedSyncT
	}
	e.syncLeft(int64(dirtyBlocks(h)) * dirty.BlockBytes)
}

// decide compares both hellos and starts what follows. Both sides compute it
// from the same two hellos.
func (e *Engine) decide() {
	if why := e.outdatedHello(); why != nil {
		e.dropSession(why)
		return
	}
	e.settleBefore()
	d := judge(e.session.mine, e.session.theirs)
	e.session.plan = d
	if d.action != e.whole.action || slices.Contains(d.full, true) {
		e.whole.action, e.whole.bytes = d.action, 0
	}
	if d.refuse != nil {
		e.noteRival(&d)
		e.split.givesUp = e.split.givesUp && !d.refuse.lasting() && !d.given
		e.refuseSession(d.refuse)
		if d.victim == e.self {
			e.emit(Effect{Kind: SplitVictim, Text: d.why})
		}
		return
	}
	e.rival, e.pulled = nil, false
	e.split.givesUp = e.split.givesUp && (d.action == actTarget || d.action == actWait) // else there is nothing to give up
	e.note(fmt.Sprintf("connected to %s%s via %s: %s, because %s", e.peer, e.otherRelease(), e.session.path, d.action, d.why))
	switch d.action {
	case actFit:
		e.fit(&d)
	case actWait:
		e.session.phase, e.session.repl = agreed, state.Off
		if e.forward.on && e.role == state.Primary {
			e.forward.lost = true // what waits for this peer would wait for ever
			e.dropSession(fmt.Errorf("%s cannot serve for this node (%s): %w", e.peer, d.why, block.ErrIO))
			return
		}
		e.established()
	case actNothing:
		e.suspect, e.session.theirs.Suspect = false, false
		for i := range e.session.theirs.Volumes { // also where the peer does not know yet, see countsAsCurrent
			e.session.theirs.Volumes[i].Disk = state.UpToDate
		}
		e.session.phase, e.session.repl = agreed, state.Established
		e.alike = true
		e.closeGeneration()
		e.resumeFlushes()
		e.established()
	case actSource:
		// The newest record may be known to neither node: the ledger is asked,
		// whatever ours says, before anything is overwritten.
		e.session.phase = preparing
		if e.role == state.Primary && e.inSync(e.peer) && e.endedAt > 0 && e.now-e.endedAt < excludeAfter {
			e.session.proven = e.now + excludeAfter // see missPeer; the tick goes on
			return
		}
		e.wantExclude()
	case actTarget:
		e.session.phase = preparing
	case actForward:
		e.session.phase = preparing
		if e.role == state.Primary {
			e.forward.on = true // until the peer is ready everything waits
		} else {
			e.keep()
		}
	default: // actNone comes with a refusal only
	}
}

// otherRelease names the peer's release where it is not this one, in brackets.
func (e *Engine) otherRelease() string {
	switch theirs := e.session.theirs.Release; theirs {
	case e.version:
		return ""
	case "":
		return " (of an earlier release)"
	default:
		return " (release " + theirs + ")"
	}
}

// outdatedHello says what has changed since our hello was sent. Marks that become more,
// where there were some and the peer is out of the set, change nothing: the resync is to
// come, and under load they are more each time.
func (e *Engine) outdatedHello() error {
	for i, v := range e.vols {
		if !v.disk.HasData() && e.session.mine.Volumes[i].Disk.HasData() {
			return errDiskFailed
		}
		said := e.session.mine.Volumes[i].DirtyBlocks
		if uint64(v.bits.Count()) > said && (said == 0 || e.peerInSync()) {
			return errRecordChanged // a write that was cold has gone on without the peer
		}
	}
	if !e.quiet() {
		return errRecordChanged
	}
	return nil
}

// closeGeneration: a resync whose end this node did not see is over when both
// copies are equal, and nothing is doubted of this one.
func (e *Engine) closeGeneration() {
	for _, v := range e.vols {
		v.doubt = false
		if v.gen.Bitmap != 0 {
			v.gen = v.gen.InLine()
			v.touch()
		}
	}
}

// established lets go of what waited for the handshake.
func (e *Engine) established() {
	for _, v := range e.vols {
		if len(v.cold) > 0 {
			e.prepareActivity(v)
		}
	}
	e.drainHeld()
	e.controlProgress()
}
