package engine

import (
	"fmt"

	"hapair/mirror/genid"
	"hapair/mirror/state"
)

// attach takes disks in the place of those that failed, while the resource is in
// use: others, or the same. A Secondary takes the same as after a crash: what the
// metadata say counts, and the next session copies what it lacks; another one is to
// be filled as a whole. So the only copy there is stays one when its disk only was away for a
// while. A Primary goes on through its peer meanwhile; it fills its own copy, and
// those of the volumes that were given up together with the failed one (fill.go).
func (e *Engine) attachDisks(ev *Event) {
	if err := e.refuseAttach(ev.Disks); err != nil {
		e.reply(Attach, fmt.Errorf("%w: %w", ErrNotTaken, err))
		return
	}
	for i, v := range e.vols {
		c := ev.Disks[i]
		same := c != nil && e.role == state.Secondary && v.knows(c)
		if c != nil {
			v.replace(c)
		}
		switch {
		case same:
			v.adopt(e.attach(i, c))
		case c != nil || e.role == state.Primary:
			v.disk, v.full, v.assume, v.unused = state.Inconsistent, true, false, false
			v.bits.SetAll()
		}
	}
	if e.record.Primary == e.peer {
		e.forgetLastPrimary()
	}
	e.judgeOwnCopy()
	e.control, e.forward.fill = control{of: Attach}, false
	if e.role == state.Secondary {
		e.dropSession(errAttached)
	}
	e.afterSupers(e.attached)
}

// attached: what the disks hold is written down there, or they have failed again.
func (e *Engine) attached() {
	if e.control.of != Attach {
		return // an Abort has taken its place
	}
	for _, v := range e.vols {
		if !v.disk.HasData() {
			e.reply(Attach, fmt.Errorf("volume %d: %w", v.num, v.failed))
			return
		}
	}
	e.noteOn(OnDisk, "a disk was attached")
	e.reply(Attach, nil)
	e.forward.fill = e.forward.on
	e.sendState()
	e.startFill()
}

// MayAttach says why no disk can be attached now, nil when one can: before its
// metadata are written.
func (e *Engine) MayAttach() error {
	switch {
	case e.control.busy():
		return fmt.Errorf("another command is running: %w", ErrBadState)
	case !e.anyFailed():
		return fmt.Errorf("no disk of %s has failed here: %w", e.name, ErrBadState)
	case e.role == state.Primary && !e.forward.on:
		return fmt.Errorf("this node is Primary and has no peer to fill the new copy from; demote it first: %w", ErrBadState)
	case e.forward.leaving || e.ledger.inFlight: // it may be leaving though an Abort has ended the tenure
		return fmt.Errorf("the ledger has not answered yet whether this copy is in the set; try again: %w", ErrBadState)
	case len(e.afterSup) > 0 || e.fitting():
		return fmt.Errorf("the metadata are being written; try again: %w", ErrBadState)
	}
	for _, v := range e.vols {
		if n := v.busy(); !v.disk.HasData() && n > 0 {
			return fmt.Errorf("volume %d: %d requests are still at the disk that failed: %w", v.num, n, ErrBadState)
		}
	}
	return nil
}

func (e *Engine) refuseAttach(disks []*VolumeConfig) error {
	if err := e.MayAttach(); err != nil {
		return err
	}
	for i, v := range e.vols {
		c := disks[i]
		switch {
		case v.disk.HasData() && c != nil:
			return fmt.Errorf("the disk of volume %d is in use: %w", v.num, ErrBadState)
		case v.disk.HasData():
		case c == nil:
			return fmt.Errorf("the disk of volume %d is %s: it needs one as well: %w", v.num, v.disk, ErrBadState)
		case c.Geometry.SizeBytes != v.geo.SizeBytes && !e.sizedMeanwhile(i, c):
			return fmt.Errorf("volume %d has %d bytes, the new disk offers %d: %w", v.num, v.geo.SizeBytes, c.Geometry.SizeBytes, ErrBadGeometry)
		case c.Geometry.LogicalBlockBytes != v.geo.LogicalBlockBytes:
			return fmt.Errorf("volume %d has logical blocks of %d bytes, the new disk of %d: %w", v.num, v.geo.LogicalBlockBytes, c.Geometry.LogicalBlockBytes, ErrBadGeometry)
		}
	}
	return nil
}

// sizedMeanwhile: the disk was given up while its metadata were laid out for another
// size, and did that after all. A Secondary takes it for that size, as a restart
// would; a Primary a larger one where its peer, which it goes on through, has that
// size too.
func (e *Engine) sizedMeanwhile(i int, c *VolumeConfig) bool {
	v, t, size := e.vols[i], e.session.theirs, c.Geometry.SizeBytes
	if !v.knows(c) {
		return false
	}
	return e.role == state.Secondary || size > v.geo.SizeBytes && e.flowing() && t.Volumes[i].SizeBytes == size
}

// knows reports whether a disk is the one that failed: it carries the generation
// that was written there last. An older one, be it of this node, is not what the
// ledger counts.
func (v *volume) knows(c *VolumeConfig) bool {
	g := c.Super.Gen.Current
	return g != genid.JustCreated && !c.Super.AssumeClean && (g == v.super.gen.Current || v.super.inFlight && g == v.super.next.Current)
}

// adopt takes a copy for what its metadata say.
func (v *volume) adopt(n *volume) {
	v.disk, v.gen, v.last, v.assume, v.full, v.unused, v.parted = n.disk, n.gen, n.last, n.assume, n.full, false, n.parted
}

// replace gives the volume another disk and its metadata. What is in flight is
// at the peer, and holds nothing of the old activity log any more.
func (v *volume) replace(c *VolumeConfig) {
	v.gen, v.bits, v.al, v.failed, v.geo.SizeBytes = c.Super.Gen, c.Bitmap, c.Log, nil, c.Geometry.SizeBytes
	v.hung, v.parted = false, parted{c.Super.Since, c.Super.Elder}
	v.floor, v.room = c.Floor, c.Room
	v.super.gen, v.page.urgent = c.Super.Gen, nil
	v.sync = syncState{acked: v.sync.acked[:0]}
	for o := v.active.head; o != nil; o = o.next {
		o.logged = false
	}
}
