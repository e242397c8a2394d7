package engine

import (
	"fmt"

	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// startSource begins once the target is out of the in-sync set.
func (e *Engine) startSource() {
	for _, v := range e.vols {
		if !v.disk.CanServe() {
			e.dropSession(fmt.Errorf("volume %d is %s and cannot be the source of a resync: %w", v.num, v.disk, ErrNotUpToDate))
			return
		}
	}
	e.session.starting = true
	for i, v := range e.vols {
		if e.session.plan.full[i] {
			v.bits.SetAll()
		}
	}
	e.startProgress()
}

// startProgress: what the target lacks is on disk here before the target is
// told to carry the SyncID, by which the next handshake goes on from there.
func (e *Engine) startProgress() {
	s := &e.session
	if !s.starting || s.closing || e.anyFailed() {
		return
	}
	if !e.pagesSaved(s.plan.full) {
		return
	}
	s.starting = false
	e.beginGenerations(s.plan.full)
	e.minting = true // whoever writes alone meanwhile waits for it
	e.afterSupers(e.minted)
	e.inSessionAfterSupers(preparing, e.sendSyncStart)
}

func (e *Engine) sendSyncStart() {
	e.session.begun = true
	for _, v := range e.vols {
		v.unused = false
	}
	e.sendState()
	e.send(wire.Message{Kind: wire.SyncStart, Token: e.writerToken()})
}

// pagesSaved reports whether the bitmaps that say "all of it" are on disk, and
// sees to it.
func (e *Engine) pagesSaved(full []bool) bool {
	saved := true
	for i, v := range e.vols {
		if _, stale := v.bits.NextStale(0); stale && full[i] {
			saved = false
			e.savePages(v)
		}
	}
	return saved
}

// beginGenerations: a target that is being filled is told apart from every copy
// that was in line with this one. Where this copy has not gone on alone yet, it
// does so now; a bitmap that says "all of it" is about nobody else. One that no
// target has heard of serves the next attempt as well.
func (e *Engine) beginGenerations(full []bool) {
	id := e.newID()
	for i, v := range e.vols {
		e.part(v)
		switch {
		case full[i] && v.unused:
		case full[i]:
			v.gen, v.assume, v.unused = v.gen.Rebase(id), false, true
		case v.gen.Bitmap == 0:
			v.gen, v.assume = v.gen.Mint(id), false
		}
	}
}

// onSyncStart: the target's copy stops counting, durably, before the first
// byte arrives; then it says what it may have that the source has not.
func (e *Engine) onSyncStart(m *wire.Message) {
	if e.session.phase != preparing || e.session.plan.action != actTarget || e.role == state.Primary {
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: "a resync was not agreed on"})
		return
	}
	if m.Token < e.highest() {
		e.refuseSession(&RefusedError{Status: wire.StaleToken, Token: e.seen, Text: fmt.Sprintf("SyncStart carries token %d, %d was seen", m.Token, e.highest())})
		return
	}
	e.seen, e.split = max(e.seen, m.Token), splitBrain{}
	for i, v := range e.vols {
		v.disk, v.assume = state.Inconsistent, false
		v.gen = v.gen.Begin(genid.FromWords(e.session.theirs.Volumes[i].Gen))
		v.full = v.full && !e.session.plan.full[i] // the source has marked all of it
	}
	e.inSessionAfterSupers(preparing, e.sendBitmaps)
}

func (e *Engine) sendBitmaps() {
	e.sendState() // Inconsistent from here on, and under the SyncID
	for i, v := range e.vols {
		if e.session.plan.full[i] {
			v.bits.ClearAll() // all of it is marked at the source
		}
	}
	e.session.telling = telling{on: true}
	e.tellPages()
}

// telling is how far a target has come with saying which blocks it may have that the
// source has not.
type telling struct {
	on           bool
	volume, page int // the next
}

// tellPages sends the next portion of them, and after the last that they are all: the
// link takes no more than so much at once, and a volume of some TiB has more. The
// bitmap does not change meanwhile, nobody writes here.
func (e *Engine) tellPages() {
	s := &e.session
	if !s.telling.on || s.phase != preparing || s.closing {
		return
	}
	t := &s.telling
	for left := pagesAtOnce; t.volume < len(e.vols); t.volume, t.page = t.volume+1, 0 {
		v := e.vols[t.volume]
		for ; t.page < v.bits.Pages(); t.page++ {
			if !v.bits.PageEmpty(t.page) {
				if left--; left < 0 {
					return // the tick goes on
				}
				data := v.bits.Page(t.page, make([]byte, 0, dirty.PageBytes))
				e.send(wire.Message{Kind: wire.Bitmap, Volume: v.num, Offset: uint64(t.page), Length: uint64(len(data)), Data: data})
			}
		}
	}
	s.telling.on = false
	s.phase, s.repl = agreed, state.SyncTarget
	e.send(wire.Message{Kind: wire.BitmapDone})
}

func (e *Engine) onBitmap(m *wire.Message) {
	v := e.byNumber(m.Volume)
	err := fmt.Errorf("no resync from here was agreed on: %w", ErrBadState)
	if e.session.phase == preparing && e.session.begun && v != nil && m.Offset < uint64(v.bits.Pages()) {
		_, err = v.bits.MergePage(int(m.Offset), m.Data)
	}
	if err != nil {
		e.refuseSession(&RefusedError{Status: wire.BadMessage, Text: fmt.Sprintf("bitmap page %d of volume %d: %v", m.Offset, m.Volume, err)})
	}
}

func (e *Engine) onBitmapDone() {
	if e.session.phase != preparing || !e.session.begun {
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: "no resync from here was agreed on"})
		return
	}
	for i, v := range e.vols {
		if got := genid.FromWords(e.session.theirs.Volumes[i].Gen).Current; got != v.gen.SyncID() {
			e.refuseSession(&RefusedError{Status: wire.BadState, Text: fmt.Sprintf("volume %d of %s carries generation %s and was to be filled under %s", v.num, e.peer, got, v.gen.SyncID())})
			return
		}
	}
	e.session.phase, e.session.repl = agreed, state.SyncSource
	e.session.resync = resync{equalRatio: askScale / 2}
	if e.paused {
		e.session.repl = state.PausedSyncS
	}
	left := int64(0)
	for _, v := range e.vols {
		v.sync = syncState{acked: v.sync.acked[:0]}
		left += v.bits.DirtyBytes()
	}
	e.syncLeft(left)
	e.established()
	e.sendState()
	e.pumpSync()
}
