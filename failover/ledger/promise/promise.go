// Package promise is a voter's memory of whom it has promised what: the half of
// the lease that is kept by those who grant it. It is pure: the voter's clock
// comes in with every call.
//
// A promise to a holder says: until it runs out I grant this resource to nobody
// else. It is counted from the receipt of the renewal, with a margin on top, so
// that the holder, who counts from the sending, always stops first.
package promise

import (
	"fmt"
	"time"

	"hapair/failover/lease"
)

// Ask is one renewal or hand-back as the voter sees it.
type Ask struct {
	Resource string
	Holder   string
	Tenure   lease.Token
	// Session names the holder's process and Seq orders what it sends: a late
	// duplicate from a dead connection must not undo a newer promise.
	Session  string
	Seq      uint64
	Duration time.Duration // of the lease asked for
}

// Known is what the voter's own copy of the ledger says about the resource.
type Known struct {
	Tenure  lease.Token
	Primary string
}

// Refusal says why a voter did not promise. "" means it did.
type Refusal string

// The refusals.
const (
	TooYoung Refusal = "voter has restarted and waits until its forgotten promises have run out"
	TooLong  Refusal = "longer than this voter promises"
	Stale    Refusal = "older than what this holder sent before"
	Outdated Refusal = "a newer tenure is known"
	NotYours Refusal = "the ledger names another primary under this tenure"
	Promised Refusal = "promised to another holder"
)

type entry struct {
	holder  string
	until   time.Duration // on the voter's clock
	session string
	seq     uint64
	tenure  lease.Token // highest asked for by anybody
}

// Table holds the promises of one voter. It is not safe for concurrent use.
type Table struct {
	longest time.Duration // of any lease promised since this start
	margin  time.Duration
	ready   time.Duration // on the voter's clock: nothing is granted before
	entries map[string]*entry
}

// New returns the table of a voter that started at now. forgotten bounds every lease
// that it may have promised before, and longest every one that it will promise: a
// longer one it would have to remember for its next start.
func New(now, forgotten, longest, margin time.Duration) *Table {
	return &Table{longest: longest, margin: margin, ready: now + max(forgotten, longest) + margin, entries: map[string]*entry{}}
}

// Longest is the longest lease that is promised; a longer one is refused as TooLong.
func (t *Table) Longest() time.Duration { return t.longest }

// Ready tells whether every promise forgotten in the restart has run out.
func (t *Table) Ready(now time.Duration) bool { return now >= t.ready }

// ReadyAt is the instant, on the voter's clock, from which Ready holds.
func (t *Table) ReadyAt() time.Duration { return t.ready }

func (t *Table) entry(resource string) *entry {
	e := t.entries[resource]
	if e == nil {
		e = &entry{}
		t.entries[resource] = e
	}
	return e
}

// Renew judges a renewal and, unless it refuses, promises. What it learns of
// newer tenures it keeps even when it refuses.
func (t *Table) Renew(now time.Duration, a Ask, k Known) Refusal {
	if a.Duration > t.longest || a.Duration <= 0 {
		return TooLong
	}
	e := t.entry(a.Resource)
	if a.Tenure < max(e.tenure, k.Tenure) {
		return Outdated
	}
	if a.Tenure == k.Tenure && a.Holder != k.Primary {
		return NotYours
	}
	e.tenure = a.Tenure
	switch {
	case !t.Ready(now):
		return TooYoung
	case now < e.until && e.holder != a.Holder:
		return Promised
	case e.holder == a.Holder && e.session == a.Session && a.Seq <= e.seq:
		return Stale
	}
	e.holder, e.session, e.seq = a.Holder, a.Session, a.Seq
	e.until = max(e.until, now+a.Duration+t.margin)
	return ""
}

// Release takes back the promise made to this very holder and process, and
// tells whether there was one. A hand-back older than the promise is ignored:
// it was delayed on the way while the holder went on.
func (t *Table) Release(now time.Duration, a Ask) bool {
	e := t.entry(a.Resource)
	if e.holder != a.Holder || e.session != a.Session || a.Seq <= e.seq {
		return false
	}
	e.seq = a.Seq
	held := now < e.until
	e.until = now
	return held
}

// Fenced drops every promise to a holder that is certainly off: it answers nothing
// any more.
func (t *Table) Fenced(now time.Duration, holder string) {
	for _, e := range t.entries {
		if e.holder == holder {
			e.until = min(e.until, now)
		}
	}
}

// Lapsed tells whether no promise to anybody but asker stands. known is false
// while the voter cannot know. Tenures below minimum are refused from now on.
func (t *Table) Lapsed(now time.Duration, resource, asker string, minimum lease.Token) (lapsed, known bool) {
	e := t.entry(resource)
	e.tenure = max(e.tenure, minimum)
	if !t.Ready(now) {
		return false, false
	}
	return now >= e.until || e.holder == asker, true
}

// Holder returns to whom a promise stands and for how long, "" for nobody.
func (t *Table) Holder(now time.Duration, resource string) (string, time.Duration) {
	e := t.entries[resource]
	if e == nil || now >= e.until {
		return "", 0
	}
	return e.holder, e.until - now
}

// Forget drops every tenure learnt but keeps the promises: a new incarnation
// of the ledger counts its tokens anew, while time goes on.
func (t *Table) Forget() {
	for _, e := range t.entries {
		e.tenure = 0
	}
}

// String describes the ask in a log line.
func (a Ask) String() string {
	return fmt.Sprintf("%s tenure %d for %s", a.Resource, a.Tenure, a.Holder)
}
