package engine

import (
	"fmt"

	"hapair/mirror/block"
	"hapair/mirror/state"
)

// A Primary without a lease answers nothing: its I/O is frozen, and goes on when
// the lease comes back or fails when the authority is gone. With on_no_quorum:
// error it does not wait for ever: after frozenMax what waits fails, and so does
// what comes, until there is a lease again. A file system then stops, can be
// unmounted, and leaves no process behind that nobody can end.

// frozenTick looks how long there has been no lease.
func (e *Engine) frozenTick() {
	if e.role != state.Primary || e.hasLease() {
		e.frozen, e.failing = false, false
		return
	}
	e.failing = e.failing && e.set.FailFrozen
	switch {
	case !e.frozen:
		e.frozen, e.frozenSince = true, e.now
	case e.set.FailFrozen && e.now-e.frozenSince >= frozenMax:
		if !e.failing {
			e.failing = true
			e.problem(fmt.Sprintf("no lease for %v: I/O fails until there is one (on_no_quorum: error)", frozenMax))
		}
		e.failWaiting()
	}
}

// noQuorum is what the application is told.
func (e *Engine) noQuorum() error {
	return fmt.Errorf("resource %s: this node has had no lease for %v: %w", e.name, frozenMax, block.ErrIO)
}

// failWaiting ends what waits for authority. What is at a disk or at the peer
// ends there first; then it waits for the lease, and fails with the next tick. A
// change that only this copy has is dirty.
func (e *Engine) failWaiting() {
	why := e.noQuorum()
	for _, v := range e.vols {
		e.abandonCold(v, why)
		e.wake(v) // what waited for one of them begins, and fails with the next tick
		for o := v.active.head; o != nil; {
			next := o.next
			if what := owesAuthority(o); what != 0 {
				v.bits.Set(o.disk.Offset, o.disk.Length)
				e.alike = e.alike && what&owedLedger == 0 // a read must not show what the peer may lack
				o.err = why
				e.paid(o, what)
			}
			o = next
		}
		e.payReads(v, why)
	}
	for _, o := range append([]*op(nil), e.flushes...) {
		if what := owesAuthority(o); what != 0 {
			o.err = why
			e.paid(o, what)
		}
	}
	e.failReads(why)
	e.failHeld(why) // those that have just ended as well
}

// owesAuthority is what an application's op owes that nobody will pay while there
// is no quorum: the ledger, what follows from it, and a peer that is away.
func owesAuthority(o *op) owed {
	if o.kind != opApplication {
		return 0
	}
	return o.owed & (owedLedger | owedSuper | unsentOwed(o))
}
