package engine

import (
	"errors"
	"fmt"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A volume grows while it is in use. The node that was asked leads: both look
// what their disks offer -> both make the new range read zero -> the other makes
// its metadata anew, durably -> this node does -> the device has the new size.
// So nothing is shown that not both copies can hold, and after any failure the
// larger copy is the one that was not shown yet: when the two meet, the smaller
// follows it (size.go), with the new range marked. Every step stands in the
// State of a node until the next does, and ends with the session.
//
//	resize.go       who asks, and what comes of it
//	resizepeer.go   what the two nodes say to each other
//	remake.go       the metadata
//	shrink.go       a smaller size

// ResizeOrder is what a resize is to do.
type ResizeOrder struct {
	Volume int   // index
	Size   int64 // bytes; 0: as much as both disks offer
	// Trusted: the operator says that the new range is equal on both disks.
	Trusted bool
	// Alone goes on without a peer that is away and out of the in-sync set.
	Alone bool
	// Cut: the size may be a smaller one. What is cut off was looked at while Seen
	// was the highest token this node had seen.
	Cut  bool
	Seen uint64
}

// resize is the one that runs, at either node; step is NoResize when none does.
type resize struct {
	number  uint64 // counts those of this life
	step    wire.ResizeStep
	lead    bool
	alone   bool
	round   uint64
	v       *volume
	order   ResizeOrder // lead
	size    int64
	trusted bool
	zeroed  int64 // the range is zero up to here
	ready   bool  // all of it is
	grown   bool  // lead: the peer's copy has the size, durably
	marked  bool  // what is to be cut off is out of sync
	text    string
}

func (x *resize) runs() bool { return x.step != wire.NoResize }

func (e *Engine) resizeStart(o ResizeOrder) {
	alone, err := e.mayResize(&o)
	if err != nil {
		e.emit(Effect{Kind: Reply, Of: Resize, Err: err})
		return
	}
	x := &e.resize
	*x = resize{number: x.number + 1, step: wire.ResizeAsk, lead: true, alone: alone, v: e.vols[o.Volume], order: o, trusted: o.Trusted}
	x.round = x.number
	e.emit(Effect{Kind: MeasureDisk, Volume: o.Volume})
}

// mayResize says why a resize cannot begin, and whether it does without the peer.
func (e *Engine) mayResize(o *ResizeOrder) (alone bool, err error) {
	s, v := &e.session, e.vols[o.Volume]
	if why := e.resizeBusy(v); why != "" {
		return false, fmt.Errorf("%s: %w", why, ErrBadState)
	}
	if s.phase == ended {
		switch {
		case !o.Alone:
			return false, fmt.Errorf("%s is not connected: whether its disk has room is not known: %w", e.peer, ErrPeerAway)
		case !e.inSync(e.self) || e.peerInSync():
			return false, fmt.Errorf("%s is not connected and not yet recorded as out of the in-sync set, which it is when something is written without it: %w", e.peer, ErrBadState)
		}
		return true, nil
	}
	switch {
	case s.phase != agreed || s.closing || s.repl != state.Established:
		return false, fmt.Errorf("the copies are not in line (replication is %s): %w", s.repl, ErrBadState)
	case s.theirs.Features&wire.FeatureResize == 0:
		return false, fmt.Errorf("the release of %s does not resize: %w", e.peer, ErrPeerRelease)
	case s.theirs.Role == state.Primary:
		return false, fmt.Errorf("%s is Primary: it has to lead: %w", e.peer, ErrBadState)
	case e.sizesDiffer():
		return false, fmt.Errorf("the copies are just being brought to one size: %w", ErrBadState)
	}
	return false, nil
}

// resizeBusy says what keeps this node from a resize, "" when nothing does.
func (e *Engine) resizeBusy(v *volume) string {
	switch {
	case e.resize.runs():
		return "a resize is running"
	case e.control.busy() || e.detaching:
		return "another command is running"
	case e.fitting() || v.zeroing:
		return "the metadata are being written anew"
	case e.anyFailed():
		return fmt.Sprintf("a disk of %s has failed", e.self)
	case e.verify.state == VerifyRunning || !e.verify.atRest() || e.answering > 0:
		return "a verify is running"
	}
	return ""
}

// measured: what the disks of a volume allow now.
func (e *Engine) measured(v *volume, ev *Event) {
	x, err := &e.resize, ev.Err
	if err == nil {
		v.floor, v.room, v.ceiling = ev.Floor, ev.Room, ev.Ceiling
	}
	if v.measuring {
		v.measuring = false
		e.tryHello()
	}
	if x.v != v || x.step != wire.ResizeAsk {
		return
	}
	switch {
	case err != nil:
		e.resizeFailed(err)
	case !x.lead:
		x.step, x.size = wire.ResizeOffer, v.room
		e.sendState()
	case x.alone:
		e.resizeTo(0)
	default:
		e.sendState()
	}
}

// resizeTo decides the size; offer is what everybody else has room for.
func (e *Engine) resizeTo(offer int64) {
	x := &e.resize
	v, size, floor := x.v, x.order.Size, x.v.floor
	if x.alone {
		offer = v.room
	} else {
		floor = max(floor, e.session.theirs.Volumes[v.index].FloorBytes)
	}
	if size == 0 {
		size = min(v.room, offer) / block.AlignBytes * block.AlignBytes
		if size < floor { // a disk has grown by less than its metadata take
			size = min(size, v.geo.SizeBytes)
		}
		size = max(size, v.geo.SizeBytes)
	}
	was := v.geo.SizeBytes
	switch {
	case size == was:
		e.endResize(nil)
	case size < was:
		e.leadCut(size)
	case size > offer:
		e.endResize(noRoom(v.num, e.peer, 0, offer, size))
	case size > v.room || size < v.floor:
		e.endResize(noRoom(v.num, e.self, v.floor, v.room, size))
	default:
		x.step, x.size = wire.ResizeGrow, size
		e.sendState()
		e.beginZero()
	}
}

// noRoom says how much a disk offers where another size is wanted.
func noRoom(number uint16, node string, floor, room, size int64) error {
	if size < floor {
		return fmt.Errorf("volume %d cannot have %d bytes on %s, where metadata lie up to byte %d: %d bytes or more: %w", number, size, node, floor, floor, ErrNoRoom)
	}
	return fmt.Errorf("volume %d is to have %d bytes, the disk of %s offers %d: enlarge that first: %w", number, size, node, room, ErrNoRoom)
}

// beginZero makes the new range read zero, before anybody sees it: then it is
// equal on both disks, and shows nothing of what they held before.
func (e *Engine) beginZero() {
	x := &e.resize
	x.zeroed = max(x.v.geo.SizeBytes, x.v.floor)
	if x.trusted {
		x.zeroed = x.size
	}
	e.pumpZero()
}

// pumpZero zeroes the next piece. One is at the disk at a time: applications go
// first.
func (e *Engine) pumpZero() {
	x := &e.resize
	if x.step != wire.ResizeGrow || x.ready || x.v.zeroing {
		return
	}
	if x.zeroed < x.v.geo.SizeBytes {
		return // it becomes smaller: there is nothing new
	}
	if x.zeroed >= x.size {
		x.ready = true
		e.resizeOn()
		return
	}
	o := e.pool.get(opZero, x.v)
	if o == nil {
		return // every op is busy; the tick asks again
	}
	o.start0 = x.number
	o.disk.Op, o.disk.Offset, o.disk.Length = block.WriteZeroes, x.zeroed, min(zeroBytes, x.size-x.zeroed)
	x.v.zeroing = true
	e.emitLocal(o)
}

// zeroDone: a piece is zero. One that fails is not yet of the volume: it fails
// the resize, not the copy.
func (e *Engine) zeroDone(o *op, err error) {
	x, v, number, end := &e.resize, o.vol, o.start0, o.end()
	v.zeroing = false
	e.pool.put(o)
	switch {
	case !x.runs() || x.number != number:
		e.controlProgress()
	case err != nil:
		e.resizeFailed(err)
	default:
		x.zeroed = end
	}
	e.pumpZero()
}

// resizeOn: the range is zero here, or the peer has grown.
func (e *Engine) resizeOn() {
	x := &e.resize
	switch {
	case !x.ready || x.v.fitTo > 0 || x.lead && !x.grown && !x.alone:
	case x.alone && e.peerInSync():
		e.endResize(fmt.Errorf("%s is in the in-sync set again; again: %w", e.peer, ErrBadState))
	default:
		e.remake(x.v, x.size, false)
	}
}

// resizeFailed ends it at this node, and says why.
func (e *Engine) resizeFailed(err error) {
	x := &e.resize
	if x.lead {
		e.endResize(err)
		return
	}
	e.endCut()
	text := err.Error()
	x.step, x.text = wire.ResizeRefused, text[:min(len(text), wire.MaxTextBytes)]
	e.sendState()
}

// interruptResize gives way to another command. A leader that waits for this node is
// told, or it would wait until the session ends.
func (e *Engine) interruptResize() {
	x, err := &e.resize, fmt.Errorf("another command has ended it: %w", ErrBadState)
	switch {
	case x.shrinks() && !x.lead && x.v.fitTo > 0:
		e.dropSession(errSizes) // the copy becomes smaller all the same, and its leader may become Primary
	case x.runs() && !x.lead:
		e.resizeFailed(err)
	default:
		e.endResize(err)
	}
}

// resizeApart is what to expect of one whose session has ended.
func (e *Engine) resizeApart() error {
	if e.resize.shrinks() {
		return fmt.Errorf("the connection to %s ended; when the two have met the volume has its old size, then again: %w", e.peer, ErrBadState)
	}
	return fmt.Errorf("the connection to %s ended; if its copy has grown already, this one follows when they meet, else again: %w", e.peer, ErrBadState)
}

// endResize ends the one that runs. A peer that has grown already is followed
// when the two meet again.
func (e *Engine) endResize(err error) {
	x := &e.resize
	if !x.runs() {
		return
	}
	lead, cut := x.lead, x.shrinks()
	e.endCut()
	*x = resize{number: x.number}
	if lead {
		e.emit(Effect{Kind: Reply, Of: Resize, Err: err})
	}
	e.sendState()
	if lead && cut && !errors.Is(err, ErrRefusedThere) {
		e.dropSession(errSizes) // the peer may be smaller already, and this node may become Primary
	}
}

// resized: the metadata say the new size.
func (e *Engine) resized(v *volume, was int64) {
	e.note(fmt.Sprintf("volume %d: was %d bytes, now %d", v.num, was, v.geo.SizeBytes))
	x := &e.resize
	switch {
	case x.v != v || x.step != wire.ResizeGrow:
		e.sendState()
	case x.lead:
		e.endResize(nil)
	default:
		x.step = wire.ResizeGrown
		e.sendState()
	}
}

// measuring reports whether a disk is being looked at before our hello.
func (e *Engine) measuring() bool {
	for _, v := range e.vols {
		if v.measuring {
			return true
		}
	}
	return false
}

// zeroing reports whether a piece is at a disk.
func (e *Engine) zeroing() bool {
	for _, v := range e.vols {
		if v.zeroing {
			return true
		}
	}
	return false
}

// sizesDiffer: the peer's copy, as it says, has another size than this one.
func (e *Engine) sizesDiffer() bool {
	for i, v := range e.vols {
		if t := e.session.theirs; t != nil && i < len(t.Volumes) && t.Volumes[i].SizeBytes != v.geo.SizeBytes {
			return true
		}
	}
	return false
}

// resizeTick goes on where no op was free, and has the copies meet again when a
// resize ended between the two.
func (e *Engine) resizeTick() {
	e.pumpZero()
	s := &e.session
	if s.phase == agreed && s.repl == state.Established && !e.resize.runs() && !e.fitting() && e.sizesDiffer() {
		e.dropSession(errSizes)
	}
}
