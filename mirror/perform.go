package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/meta"
	"hapair/mirror/wire"
)

// step brings one event to the engine, carries out the effects, and lets go
// what they and earlier ones left to be started together. It may be called
// from any goroutine, and again from inside an effect.
func (r *Resource) step(ev *engine.Event) {
	r.stepPlugged(ev)
	r.Unplug()
}

// stepPlugged is step for one of several events in a row: frames, disk requests
// and answers may lie until Unplug, which the caller calls after the last, and
// before it waits for anything. Frames are queued under the lock, because their
// order counts; everything else happens after it is released.
func (r *Resource) stepPlugged(ev *engine.Event) {
	r.mu.Lock()
	var effects []engine.Effect
	if n := len(r.mu.free); n > 0 {
		effects = r.mu.free[n-1]
		r.mu.free = r.mu.free[:n-1]
	}
	effects = r.mu.eng.Step(r.cfg.Clock(), ev, effects[:0])
	for i := range effects {
		if effects[i].Kind == engine.PeerSend {
			r.link.Send(effects[i].Session, effects[i].Message)
		}
	}
	r.mu.Unlock()
	for i := range effects {
		r.perform(&effects[i])
	}
	clear(effects)
	r.mu.Lock()
	r.mu.free = append(r.mu.free, effects)
	r.mu.Unlock()
}

// Unplug lets go what steps have left to be started together: first the frames,
// so that the peer begins at once, then the answers, then the disks.
func (r *Resource) Unplug() {
	r.link.Flush()
	r.plug.Lock()
	answered := r.plug.answered
	r.plug.answered = block.Answers{}
	r.plug.Unlock()
	answered.Flush()
	for _, v := range r.vols {
		if disk := v.on.Load().data; disk != nil {
			disk.Unplug()
		}
	}
}

// Answered makes the Resource the submitter of its disk requests: they ended
// in a row.
func (r *Resource) Answered() { r.Unplug() }

// answerPlugged ends a request of a front end, which hears of it at Unplug.
func (r *Resource) answerPlugged(req *block.Request, err error) {
	by := req.By
	req.Done(req, err)
	if by == nil {
		return
	}
	r.plug.Lock()
	r.plug.answered.Add(by)
	r.plug.Unlock()
}

// perform carries out one effect.
func (r *Resource) perform(f *engine.Effect) {
	switch f.Kind {
	case engine.PeerSend: // queued already
	case engine.LocalIO:
		b := r.vols[f.Volume].on.Load()
		f.Request.Done, f.Request.By, f.Request.Plugged = r.done, r, true
		b.data.Submit(f.Request)
	case engine.Answer:
		r.answerPlugged(f.Request, f.Err)
	case engine.WriteActivity, engine.WritePages, engine.WriteSuper:
		r.writeMeta(f)
	case engine.Digest:
		r.running.Add(1)
		go r.digest(f.Request)
	case engine.FitSize:
		r.running.Add(1)
		go r.vols[f.Volume].fit(f.Size, *f.Super)
	case engine.MeasureDisk:
		r.running.Add(1)
		go r.vols[f.Volume].measured()
	case engine.RemakeMeta:
		r.running.Add(1)
		go r.vols[f.Volume].remake(meta.Remake{DataBytes: f.Size, Bitmap: f.Bitmap, Log: f.Log}, *f.Super)
	case engine.LedgerExclude, engine.LedgerGiveUp, engine.LedgerInclude:
		r.running.Add(1)
		go r.changeInSync(f.Kind, f.Node, f.Token)
	case engine.LedgerLeave:
		r.running.Add(1)
		go r.leaveInSync(f.Node, f.Token)
	default:
		r.performRare(f)
	}
}

// endedBy notes why there is no session.
func (r *Resource) endedBy(why error) { r.why.Store(&why) }

func (r *Resource) performRare(f *engine.Effect) {
	switch f.Kind {
	case engine.DropLink:
		r.endedBy(f.Err)
		r.link.Drop(f.Session, f.Err)
	case engine.RestLink:
		r.endedBy(f.Err)
		r.link.Refuse(f.Err)
		if old := r.rest.Swap(time.AfterFunc(f.For, r.endRest)); old != nil {
			old.Stop()
		}
	case engine.AbandonDisk:
		r.vols[f.Volume].on.Load().abandon(f.Err)
	case engine.StandAlone:
		r.cfg.Observer.Trouble(r.cfg.Resource, fmt.Sprintf("connection to %s: StandAlone, because %v", r.cfg.Peer, f.Err))
		r.standAlone.Store(true)
		r.link.Refuse(f.Err)
		r.endedBy(f.Err)
	case engine.Deposed:
		r.log.Warn("authority is gone", zap.Error(f.Err))
		r.cfg.Observer.Deposed(r.cfg.Resource, f.Err)
	case engine.Reply:
		r.mu.Lock()
		ch := r.mu.replies[f.Of]
		delete(r.mu.replies, f.Of)
		r.mu.Unlock()
		if ch != nil {
			ch <- f.Err
		}
	case engine.Proven:
		r.cfg.Observer.Proven(r.cfg.Resource, r.vols[f.Volume].cfg.Number, f.Offset, f.Size)
	case engine.SplitVictim:
		r.cfg.Observer.SplitVictim(r.cfg.Resource, f.Text)
	case engine.Note:
		r.log.Info(f.Text)
		r.cfg.Observer.Happened(r.cfg.Resource, f.Topic, f.Text)
	case engine.Problem:
		r.log.Warn(f.Text)
		r.cfg.Observer.Trouble(r.cfg.Resource, f.Text)
	default: // carried out by perform
	}
	r.cfg.Observer.Changed(r.cfg.Resource)
}

// digest computes what a verify compares, on a goroutine of its own: it takes a
// processor for as long as a disk takes to read it. The engine bounds how many.
func (r *Resource) digest(req *block.Request) {
	defer r.running.Done()
	r.step(&engine.Event{Kind: engine.Digested, Request: req, Payload: wire.AppendDigests(make([]byte, 0, wire.DigestsOf(req.Length)), req.Data)})
}

// diskDone is the return of the engine's own requests; Answered follows.
func (r *Resource) diskDone(req *block.Request, err error) {
	r.stepPlugged(&engine.Event{Kind: engine.LocalDone, Request: req, Err: err})
}

// writeMeta makes metadata durable; whatever comes of it is an event.
func (r *Resource) writeMeta(f *engine.Effect) {
	b := r.vols[f.Volume].on.Load()
	volume, version := f.Volume, f.Version
	switch f.Kind {
	case engine.WriteActivity:
		b.meta.WriteActivity(f.Activity, func(err error) {
			r.step(&engine.Event{Kind: engine.ActivityDone, Volume: volume, Err: err})
		})
	case engine.WritePages:
		b.meta.WriteBitmapPages(f.Page, f.Payload, func(err error) {
			r.step(&engine.Event{Kind: engine.PagesDone, Volume: volume, Err: err})
		})
	case engine.WriteSuper:
		b.meta.WriteSuper(b.superblock(f.Super), func(err error) {
			r.step(&engine.Event{Kind: engine.SuperDone, Volume: volume, Version: version, Err: err})
		})
	default: // perform hands over no others
	}
}

// retryLedger is how long to wait before the ledger is asked again.
const retryLedger = 10 * time.Millisecond

// changeInSync asks the ledger until the change is decided.
func (r *Resource) changeInSync(change engine.EffectKind, node string, token uint64) {
	defer r.running.Done()
	for warned := false; ; {
		rec, err := r.askLedger(change, node, token, askLedgerFor)
		if err == nil || errors.Is(err, ErrStale) {
			if err != nil {
				err = fmt.Errorf("%w: %w", engine.ErrStaleToken, err)
			}
			r.step(&engine.Event{Kind: engine.LedgerDone, Record: rec, Err: err})
			return
		}
		if !warned {
			warned = true
			r.log.Warn("the ledger cannot be changed yet; answers wait", zap.String("node", node), zap.Bool("include", change == engine.LedgerInclude), zap.Error(err))
		}
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(retryLedger):
		}
	}
}

// How long the ledger is asked at a time, and how long for an operator who waits.
const (
	askLedgerFor = 2 * time.Second
	leaveWithin  = 5 * time.Second
)

// leaveInSync asks the ledger once to take this node out of the in-sync set: an
// operator waits, and is told when there is no quorum.
func (r *Resource) leaveInSync(node string, token uint64) {
	defer r.running.Done()
	rec, err := r.askLedger(engine.LedgerLeave, node, token, leaveWithin)
	if errors.Is(err, ErrStale) {
		err = fmt.Errorf("%w: %w", engine.ErrStaleToken, err)
	} else if err != nil {
		err = fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	r.step(&engine.Event{Kind: engine.LedgerDone, Record: rec, Err: err})
}

func (r *Resource) askLedger(change engine.EffectKind, node string, token uint64, limit time.Duration) (wire.Record, error) {
	ctx, cancel := context.WithTimeout(r.ctx, limit)
	defer cancel()
	switch change {
	case engine.LedgerInclude:
		return r.cfg.Ledger.Include(ctx, r.cfg.Resource, node, token)
	case engine.LedgerGiveUp:
		return r.cfg.Ledger.GiveUp(ctx, r.cfg.Resource, node, token)
	default: // perform hands over no others
	}
	return r.cfg.Ledger.Exclude(ctx, r.cfg.Resource, node, token)
}
