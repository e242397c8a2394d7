package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hapair/mirror/aside"
	"hapair/mirror/dirty"
	"hapair/mirror/engine"
	"hapair/mirror/genid"
	"hapair/mirror/state"
)

// How long an undo waits for what is under way, and how often it looks.
const (
	undoPatience = 10 * time.Second
	undoLook     = 50 * time.Millisecond
)

// Undo puts back what this node gave up. It stands alone from then on, out of the
// in-sync set, and when all is back it meets its peer again, to find a split brain. A
// ctx that ends does not stop what has begun.
func (r *Resource) Undo(ctx context.Context) error {
	err := r.checkKept(ctx) // first, and for as long as it takes: a promotion does not wait for it
	if err == nil {
		r.admin.Lock()
		defer r.admin.Unlock()
		err = r.mayUndo()
	}
	if err == nil {
		err = r.leave(ctx)
	}
	if err == nil {
		err = r.beginUndo(ctx)
	}
	if err != nil {
		return fmt.Errorf("put back what %s gave up: %w", r.cfg.Resource, err)
	}
	ended := make(chan error, 1)
	r.undoing.Store(true)
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		ended <- r.finishUndo()
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("put back what %s gave up: it goes on: %w", r.cfg.Resource, context.Cause(ctx))
	}
}

// mayUndo judges the images, all of them, before anything is changed.
func (r *Resource) mayUndo() error {
	if r.undoing.Load() {
		return fmt.Errorf("it is being put back: %w", ErrKept)
	}
	if v := r.View(); v.Role != state.Secondary {
		return fmt.Errorf("this node is %s: %w", v.Role, engine.ErrBadState)
	}
	for _, v := range r.vols {
		m, err := v.whole()
		if err != nil {
			return err
		}
		if s := m.State(); s.Phase == aside.Undone {
			return fmt.Errorf("volume %d was put back already, at %s: %w", v.cfg.Number, s.At.Format(time.RFC3339), ErrKept)
		}
		if now := v.geo.Load().SizeBytes; now != m.Header.SizeBytes {
			return fmt.Errorf("volume %d had %d bytes then, and has %d: %w", v.cfg.Number, m.Header.SizeBytes, now, ErrKept)
		}
	}
	return nil
}

// whole is the image of a volume, unless it lacks something.
func (v *volume) whole() (*aside.Image, error) {
	m := v.image()
	if m == nil {
		return nil, fmt.Errorf("volume %d: %w", v.cfg.Number, aside.ErrNone)
	}
	if s := m.State(); s.Phase == aside.Incomplete {
		return nil, fmt.Errorf("volume %d: the image is incomplete (%s): %w", v.cfg.Number, s.Why, ErrKept)
	}
	return m, nil
}

// allWhole reports whether no image lacks anything.
func (r *Resource) allWhole() error {
	for _, v := range r.vols {
		if _, err := v.whole(); err != nil {
			return err
		}
	}
	return nil
}

// checkKept reads all that is kept, before anything is changed.
func (r *Resource) checkKept(ctx context.Context) error {
	if err := r.mayUndo(); err != nil {
		return err
	}
	for _, v := range r.vols {
		m, err := v.whole()
		if err != nil {
			return err
		}
		if err := m.Check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// leave ends the session, and has the ledger take this copy out of the set: before
// the first byte is put back, it is no more what the set promises.
func (r *Resource) leave(ctx context.Context) error {
	r.Disconnect()
	ctx, cancel := context.WithTimeout(ctx, undoPatience)
	defer cancel()
	var last error
	for {
		v := r.View()
		switch {
		case v.Connected || v.Greeting:
		case !slices.Contains(v.Record.InSync, r.cfg.Self):
			return nil
		case len(v.Record.InSync) == 1:
			return fmt.Errorf("this is the only copy in the in-sync set: %w", engine.ErrBadState)
		default:
			rec, err := r.cfg.Ledger.Exclude(ctx, r.cfg.Resource, r.cfg.Self, v.Record.Token)
			if last = err; err == nil || errors.Is(err, ErrStale) {
				r.SetRecord(rec)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("this copy could not be taken out of the in-sync set: %w", errors.Join(context.Cause(ctx), last))
		case <-time.After(undoLook):
		}
	}
}

// beginUndo has the engine call the copy worthless, durably. What is under way until then
// may lose an image: there is no reason for it then.
func (r *Resource) beginUndo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, undoPatience)
	defer cancel()
	for {
		if err := r.allWhole(); err != nil {
			return err
		}
		err := r.command(ctx, &engine.Event{Kind: engine.Undo})
		if err == nil || !errors.Is(err, engine.ErrBadState) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(undoLook):
		}
	}
}

// finishUndo puts all volumes back, and makes the copy what it was. Nothing is written
// any more that could lose an image: what is whole now stays it.
func (r *Resource) finishUndo() error {
	defer r.undoing.Store(false)
	ev := &engine.Event{Kind: engine.UndoDone, Err: r.allWhole()}
	for _, v := range r.vols {
		if ev.Err == nil {
			ev.Err = v.putBack(r.ctx, ev)
		}
	}
	err := r.command(context.WithoutCancel(r.ctx), ev)
	if err == nil {
		err = r.setPhase(aside.Undone)
	}
	if err != nil {
		err = fmt.Errorf("put back what %s gave up: %w", r.cfg.Resource, err)
		r.cfg.Observer.Trouble(r.cfg.Resource, err.Error()+"; until an undo succeeds, or the copy is filled from the peer's, it is worth nothing")
		return err
	}
	r.cfg.Observer.Happened(r.cfg.Resource, engine.OnResync, "what this node gave up was put back")
	r.configure()
	r.Connect()
	return nil
}

// putBack puts one volume back, and adds what the engine has to know.
func (v *volume) putBack(ctx context.Context, ev *engine.Event) error {
	d := v.on.Load().data
	m, err := v.whole()
	switch {
	case err != nil:
		return err
	case d == nil || d.Image() != m:
		return fmt.Errorf("volume %d: the disk was exchanged: %w", v.cfg.Number, ErrKept)
	}
	if err := m.SetState(aside.State{Phase: aside.Undoing}); err != nil {
		return err
	}
	if err := d.PutBack(ctx); err != nil {
		return err
	}
	size := v.geo.Load().SizeBytes
	marks := dirty.New(size)
	for b := range (size + aside.BlockBytes - 1) / aside.BlockBytes {
		if m.Saved(b) {
			marks.Set(b*aside.BlockBytes, min(aside.BlockBytes, size-b*aside.BlockBytes))
		}
	}
	ev.Copies, ev.Marks = append(ev.Copies, superOf(&m.Header)), append(ev.Marks, marks)
	return nil
}

func (r *Resource) setPhase(p aside.Phase) error {
	for _, v := range r.vols {
		if m := v.image(); m != nil {
			if m.State().Phase == aside.Incomplete {
				continue
			}
			if err := m.SetState(aside.State{Phase: p}); err != nil {
				return err
			}
		}
	}
	return nil
}

// interrupted reports whether an undo was under way when this agent was last ended.
func (r *Resource) interrupted() bool {
	return slices.ContainsFunc(r.Kept(), func(k Kept) bool { return k.Phase == aside.Undoing })
}

// resumeUndo goes on with it, before there is any session.
func (r *Resource) resumeUndo() {
	defer r.running.Done()
	err := r.resume()
	for errors.Is(err, engine.ErrBadState) { // the ledger may count this copy yet, as it was read last
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(time.Second):
		}
		err = r.resume()
	}
	if err != nil {
		r.cfg.Observer.Trouble(r.cfg.Resource, fmt.Sprintf("what this node gave up cannot be put back any further: %v", err))
	}
	if err == nil && r.undoing.Load() {
		_ = r.finishUndo() // it has told
	}
	r.link.Start() // not before: the peer is told that this was put back, and what it says of it stands
}

// resume begins again, unless the copy says that it needs not: it has its generations
// of before when all is back, and others when it was filled since.
func (r *Resource) resume() error {
	r.admin.Lock()
	defer r.admin.Unlock()
	if !r.worthless() {
		return r.settleUndo()
	}
	if err := r.mayUndo(); err != nil {
		return err
	}
	if err := r.command(r.ctx, &engine.Event{Kind: engine.Undo}); err != nil {
		return err
	}
	r.undoing.Store(true)
	return nil
}

// worthless reports whether a volume is what beginUndo makes of it.
func (r *Resource) worthless() bool {
	return slices.ContainsFunc(r.copies(), func(s engine.Super) bool {
		return s.Disk == state.Inconsistent && s.Gen == genid.New()
	})
}

func (r *Resource) copies() []engine.Super {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.eng.Copies()
}

// settleUndo has the images say what became of an undo that is not under way.
func (r *Resource) settleUndo() error {
	is := aside.Undone
	for i, s := range r.copies() {
		if m := r.vols[i].image(); m != nil && superOf(&m.Header).Gen != s.Gen {
			is = aside.Keeping // and whatever has filled the copy since was saved
		}
	}
	err := r.setPhase(is)
	r.configure()
	return err
}
