package engine

import "hapair/mirror/block"

// answer gives an application op back to its front end, if the lease is valid
// at this instant; otherwise it waits for a renewal or for Abort.
func (e *Engine) answer(o *op) {
	if o.heals {
		e.healed(o)
		return
	}
	if o.early {
		e.endEarly(o)
		return
	}
	if e.aborting != nil {
		e.release(o, e.aborting)
		e.controlProgress()
		return
	}
	if !e.hasLease() {
		e.answers.push(o)
		return
	}
	e.release(o, o.err)
}

func (e *Engine) release(o *op, err error) {
	e.count(o, err)
	e.emit(Effect{Kind: Answer, Request: o.req, Err: err})
	e.free(o)
}

// drainAnswers lets go what waited for the lease.
func (e *Engine) drainAnswers() {
	for e.answers.head != nil && e.hasLease() {
		o := e.answers.pop()
		e.release(o, o.err)
	}
}

// failHeld answers everything that waits for a lease or for admission.
func (e *Engine) failHeld(err error) {
	held := e.held
	e.held, e.heldVol = nil, nil
	for _, r := range held {
		e.emit(Effect{Kind: Answer, Request: r, Err: err})
	}
	for e.answers.head != nil {
		o := e.answers.pop()
		if o.err == nil && o.req.Op != block.Read {
			// Both copies have it, or the ledger knows; but without authority
			// nobody may be told so. The application learns "unknown".
			o.err = err
		}
		e.release(o, err)
	}
}

func (e *Engine) count(o *op, err error) {
	s := &o.vol.stats
	switch {
	case err != nil:
		s.Errors++
	case o.req.Op == block.Read:
		s.Reads++
		s.ReadBytes += uint64(o.req.Length)
	case o.req.Op == block.Flush:
		s.Flushes++
	default:
		s.Writes++
		s.WriteBytes += uint64(o.req.Length)
		s.WriteLatency.Observe(e.now - o.began)
	}
}
