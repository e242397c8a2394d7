// Package lease holds the words of authority: tokens, the clock they are
// timed with, and the lease a writer works under. It imports nothing of ours.
package lease

import "time"

// Token grows with every promotion and every change of an in-sync set. It
// fences: whoever has seen a higher one refuses a lower one.
type Token uint64

// Clock returns the time since an arbitrary fixed start. It never goes back
// and, outside tests, counts suspend (CLOCK_BOOTTIME). It is safe for
// concurrent use.
type Clock func() time.Duration

// Lease is the permission to serve a resource under a token. Until is counted
// by the holder's own Clock from the instant the renewal was SENT; no instant
// ever leaves a node. The zero Lease permits nothing.
type Lease struct {
	Resource string
	Tenure   Token         // token at which the holder was promoted
	Until    time.Duration // on the holder's Clock
}

// Valid reports whether the lease permits anything at now.
func (l Lease) Valid(now time.Duration) bool { return l.Tenure != 0 && now < l.Until }
