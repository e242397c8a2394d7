// Package engine is the mirror's core: one resource on one node, as a pure
// function of its state and one event.
//
// Step(now, event) returns effects. The engine does no I/O, starts no
// goroutine and reads no clock; every result of an effect, failures included,
// comes back as an event, so no error can be dropped. Effects of one Step are
// carried out in their order; an effect that must not happen before another is
// durable is only emitted after the event that says so.
//
// One write, protocol C, in the order things meet it (write.go):
//
//  1. judged: role, disk, range (submit.go); without a lease it is held
//  2. overlapping writes before it wait (conflict.go)
//  3. its extents are hot in the durable activity log (activity.go)
//  4. local write and frame to the peer, neither waits for the other
//  5. settled when nothing is owed: local, peer, ledger, superblock
//  6. answered while the lease is valid, otherwise it waits (answer.go)
//
// When the peer is lost in between (session.go), whatever it may lack becomes
// dirty, the ledger is asked to take the peer out of the in-sync set, and only
// then is the write answered (the ack law).
//
// In protocols B and A the answer comes before the peer's half of 5 (early.go).
//
// The engine is not safe for concurrent use: its caller steps it under a lock.
package engine
