package engine

import (
	"fmt"

	"hapair/mirror/actlog"
	"hapair/mirror/dirty"
)

// prepareActivity writes the next activity-log transaction if extents are
// wanted and none is on its way (group commit).
func (e *Engine) prepareActivity(v *volume) {
	if v.activity.inFlight || v.fitTo > 0 || !v.disk.HasData() {
		return
	}
	clean := func(extent uint32) bool { return !v.bits.Unsaved(dirty.PageOfExtent(extent)) }
	tx, ok, blocked := v.al.Prepare(v.durable, clean)
	if blocked {
		e.unblockActivity(v, clean)
	}
	if !ok {
		return
	}
	v.activity.inFlight, v.activity.tx = true, tx
	e.emit(Effect{Kind: WriteActivity, Volume: v.index, Activity: tx})
}

// unblockActivity does what the log says a slot needs: a flush on every
// in-sync copy, bitmap pages on disk (rule R7).
func (e *Engine) unblockActivity(v *volume, clean func(uint32) bool) {
	needSeq, unclean := v.al.Blocking(v.durable, clean)
	switch {
	case needSeq <= v.durable:
	case e.replicating() || !e.peerInSync():
		e.flushOwn(v)
	case !e.negotiating() && !e.anyFailed() && !e.forward.on:
		// Nothing can become durable at a peer that is not there.
		e.missPeer()
	}
	for _, extent := range unclean {
		e.urgentPage(v, dirty.PageOfExtent(extent))
	}
	e.nextPages(v)
}

func (e *Engine) activityDone(v *volume, err error) {
	v.activity.inFlight = false
	if err != nil {
		// A failed activity-log write fails the data write; it never goes ahead.
		v.al.Abort(v.activity.tx)
		e.diskFailed(v, fmt.Errorf("activity log: %w", err))
		return
	}
	v.al.Commit(v.activity.tx)
	e.retryCold(v)
	if len(v.cold) > 0 {
		e.prepareActivity(v)
	}
}

// retryCold launches the ops whose extents have become hot.
func (e *Engine) retryCold(v *volume) {
	cold := v.cold
	v.cold, v.warm = v.warm[:0], nil // an op that ends at once lets others in, which may be cold too
	for _, o := range cold {
		if v.al.Acquire(o.disk.Offset, o.disk.Length) == actlog.Hot {
			e.launch(o)
		} else {
			v.cold = append(v.cold, o)
		}
	}
	clear(cold)
	v.warm = cold[:0]
}

func (e *Engine) urgentPage(v *volume, page int) {
	for _, p := range v.page.urgent {
		if p == page {
			return
		}
	}
	v.page.urgent = append(v.page.urgent, page)
}

// savePages writes changed pages back while nothing waits for them, so that an
// eviction rarely has to.
func (e *Engine) savePages(v *volume) {
	if v.page.inFlight || v.fitTo > 0 || !v.disk.HasData() {
		return
	}
	for n, from := 0, 0; n < pagesPerSave; n++ {
		page, ok := v.bits.NextStale(from)
		if !ok {
			break
		}
		e.urgentPage(v, page)
		from = page + 1
	}
	e.nextPages(v)
}

// nextPages writes the next page that something waits for; one write is on its way
// at a time.
func (e *Engine) nextPages(v *volume) {
	for !v.page.inFlight && v.fitTo == 0 && len(v.page.urgent) > 0 && v.disk.HasData() {
		page := v.page.urgent[0]
		v.page.urgent = append(v.page.urgent[:0], v.page.urgent[1:]...)
		if v.bits.Stale(page) {
			e.writePages(v, page)
		}
	}
}

// writePages writes a page, and what has changed right behind it: that takes a disk
// hardly longer.
func (e *Engine) writePages(v *volume, first int) {
	w, end := &v.page, min(first+pagesPerWrite, v.bits.Pages())
	w.inFlight, w.first, w.versions = true, first, w.versions[:0]
	for page := first; page < end && v.bits.Stale(page); page++ {
		w.versions = append(w.versions, v.bits.Version(page))
	}
	payload := make([]byte, len(w.versions)*dirty.PageBytes)
	for i := range w.versions {
		v.bits.Page(first+i, payload[i*dirty.PageBytes:][:dirty.PageBytes:dirty.PageBytes])
	}
	e.emit(Effect{Kind: WritePages, Volume: v.index, Page: first, Payload: payload})
}

func (e *Engine) pagesDone(v *volume, err error) {
	w := &v.page
	w.inFlight = false
	if err != nil {
		e.diskFailed(v, fmt.Errorf("bitmap pages %d to %d: %w", w.first, w.first+len(w.versions)-1, err))
		return
	}
	for i, version := range w.versions {
		v.bits.Saved(w.first+i, version)
	}
	e.nextPages(v)
	e.verifyMarked(v)
	e.cutProgress(v)
	if len(v.cold) > 0 {
		e.prepareActivity(v)
	}
	e.startProgress()
	e.keepProgress()
	e.controlProgress()
}
