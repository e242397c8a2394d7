// Package fault has layers of block.Disk that make a disk bad on purpose: Disk
// fails, tears, delays or hangs requests by rules; Cache loses what was not
// flushed when the process dies. They are ordinary layers with a knob, for tests
// and for the lab build of the agent.
package fault

import (
	"slices"
	"sync"
	"time"

	"hapair/mirror/block"
)

// Rule picks requests and says what happens to them. The zero Rule picks every
// request and does nothing. Of several rules the first that picks a request
// counts.
type Rule struct {
	Ops    []block.Op // any of these; empty: every operation
	Offset int64      // of the range a request must touch; flushes touch every range
	Length int64      // 0: to the end of the disk
	Skip   int        // let so many requests pass first
	Count  int        // then act so often; 0: for ever

	Delay time.Duration // hold the request so long
	Hang  bool          // hold the request until Release
	Err   error         // fail it; the disk does not see it, except:
	Late  bool          // carry it out, then fail it
	Torn  bool          // carry out the first half of a write, then fail it
}

func (u *Rule) picks(r *block.Request) bool {
	if len(u.Ops) > 0 && !slices.Contains(u.Ops, r.Op) {
		return false
	}
	if r.Op == block.Flush {
		return true
	}
	return r.End() > u.Offset && (u.Length == 0 || r.Offset < u.Offset+u.Length)
}

// ID names a rule of a Disk.
type ID int

// Disk passes requests on to another disk, as its rules allow. It is safe for
// concurrent use.
type Disk struct {
	inner block.Disk

	mu struct {
		sync.Mutex
		next  ID
		rules []*active
		hung  []*held
	}
	waiting sync.WaitGroup // requests that inner does not have
}

type active struct {
	Rule
	id   ID
	seen int
}

// held is a request on hold, and the rule that did it.
type held struct {
	r    *block.Request
	rule Rule
}

// New wraps a disk; without rules nothing changes. Close closes the inner disk.
func New(inner block.Disk) *Disk { return &Disk{inner: inner} }

// Add adds a rule behind the others.
func (d *Disk) Add(u Rule) ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.next++
	d.mu.rules = append(d.mu.rules, &active{Rule: u, id: d.mu.next})
	return d.mu.next
}

// Remove removes a rule. Requests it holds stay held.
func (d *Disk) Remove(id ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.rules = slices.DeleteFunc(d.mu.rules, func(a *active) bool { return a.id == id })
}

// Clear removes all rules. Requests on hold stay held.
func (d *Disk) Clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.rules = nil
}

// Seen is how many requests a rule has picked, those it let pass included.
func (d *Disk) Seen(id ID) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.mu.rules {
		if a.id == id {
			return a.seen
		}
	}
	return 0
}

// Hung is how many requests wait for Release.
func (d *Disk) Hung() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mu.hung)
}

// Release lets the requests that hang go on, in their order. Rules stay.
func (d *Disk) Release() {
	d.mu.Lock()
	hung := d.mu.hung
	d.mu.hung = nil
	d.mu.Unlock()
	for _, h := range hung {
		d.act(h.r, h.rule)
		d.waiting.Done()
	}
}

// Geometry is the inner disk's.
func (d *Disk) Geometry() block.Geometry { return d.inner.Geometry() }

// Close removes all rules, lets everything on hold go on, and closes the inner
// disk.
func (d *Disk) Close() error {
	d.Clear()
	d.Release()
	d.waiting.Wait()
	return d.inner.Close()
}

// Submit does to a request what the first rule that picks it says.
func (d *Disk) Submit(r *block.Request) {
	d.mu.Lock()
	u, ok := d.judge(r)
	if ok && (u.Hang || u.Delay > 0) {
		d.waiting.Add(1)
	}
	if ok && u.Hang {
		d.mu.hung = append(d.mu.hung, &held{r, u})
	}
	d.mu.Unlock()
	switch {
	case !ok:
		d.inner.Submit(r)
	case u.Hang:
	case u.Delay > 0:
		time.AfterFunc(u.Delay, func() {
			d.act(r, u)
			d.waiting.Done()
		})
	default:
		d.act(r, u)
	}
}

// judge finds the rule for a request; the mutex is held.
func (d *Disk) judge(r *block.Request) (Rule, bool) {
	for _, a := range d.mu.rules {
		if !a.picks(r) {
			continue
		}
		a.seen++
		if a.seen > a.Skip && (a.Count == 0 || a.seen <= a.Skip+a.Count) {
			return a.Rule, true
		}
	}
	return Rule{}, false
}

// act carries a request out or fails it.
func (d *Disk) act(r *block.Request, u Rule) {
	if u.Err == nil {
		d.inner.Submit(r)
		return
	}
	part := *r
	part.Done = func(_ *block.Request, err error) {
		if err == nil {
			err = u.Err
		}
		r.Answer(err)
	}
	if u.Torn && r.Op == block.Write {
		unit := int64(d.inner.Geometry().LogicalBlockBytes)
		part.Length = r.Length / 2 / unit * unit
		part.Data = r.Data[:part.Length]
	}
	if (u.Late || u.Torn && r.Op == block.Write) && (part.Length > 0 || r.Op == block.Flush) {
		d.inner.Submit(&part)
		return
	}
	r.Answer(u.Err)
}
