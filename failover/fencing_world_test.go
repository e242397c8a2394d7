package failover

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"hapair/failover/plan"
)

// The world of arbitration by fencing: what the ledger keeps of a fence, as
// failover/ledger does it, and a device that does as the test says.

// ballot is one node's. It is guarded by world.mu.
type ballot struct {
	state   plan.FenceState
	ticket  uint64
	met     bool // since this life began
	contact time.Time
}

func (b *ballot) crash() {
	b.met = false
	if b.state != plan.FenceNone { // whoever asked is gone; see Fences.Close
		b.state = plan.FenceVoid
	}
}

// device is what fences. mode says what comes of it.
type device struct {
	mode  deviceMode
	takes time.Duration
	late  bool // it strikes at the end of what it takes, not at the beginning, whoever waits
}

type deviceMode uint8

const (
	honest  deviceMode = iota
	refuses            // and does nothing
	mute               // it fences, and nobody hears of it
	broken             // it does nothing, and nobody hears of that
)

var errNotFenced = errors.New("no fence is confirmed")

// arm gives a node that starts its fences.
func (w *world) arm(n *node, peer string) {
	if w.set.Arbitration != plan.Fencing {
		return
	}
	w.in(func() {
		if n.ballot.state == plan.FenceVoid { // the devices of the former life have ended with it
			n.ballot.state = plan.FenceNone
		}
	})
	n.fences = NewFences(FencesConfig{Self: n.name, Peer: peer, Ballot: ballots{n}, Devices: devices{n}, Clock: w.now, Log: zap.NewNop(), Wake: func(cause string) {
		var c *Controller
		w.in(func() { c = n.ctl })
		if c != nil {
			c.Wake(cause)
		}
	}})
}

// meet is two nodes that reach each other: whoever went on alone has the other
// one back, and no fence of before counts. Holds mu.
func (w *world) meet() {
	if !w.connected() || w.set.Arbitration != plan.Fencing {
		return
	}
	w.alone = ""
	for _, n := range w.nodes {
		n.ballot.met, n.ballot.contact = true, time.Now()
		switch n.ballot.state {
		case plan.FenceAsked:
			n.ballot.state = plan.FenceVoid
		case plan.FenceConfirmed, plan.FenceFailed:
			n.ballot.state = plan.FenceNone
		case plan.FenceNone, plan.FenceVoid:
		}
	}
}

// ballots is a node's Ballot.
type ballots struct{ *node }

func (n ballots) Fence() BallotFence {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	b := BallotFence{State: n.ballot.state, May: n.mayFence()}
	if p := n.known.Primary; p != "" {
		b.Primaries = []string{p}
	}
	return b
}

// mayFence holds mu.
func (n *node) mayFence() error {
	switch {
	case n.w.alone != "":
		return errors.New("one of them is alone")
	case !n.ballot.met:
		return errors.New("not met since it began")
	case n.w.connected():
		return errors.New("it answers")
	case !n.known.Has(n.name) || n.known.Primary == "":
		return errors.New("nothing would be gained")
	}
	return nil
}

func (n ballots) AskFence() (uint64, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if err := n.mayFence(); err != nil {
		return 0, err
	}
	if n.ballot.state != plan.FenceNone && n.ballot.state != plan.FenceFailed {
		return 0, errors.New("undecided")
	}
	if n.w.alone != "" {
		n.w.wrong = append(n.w.wrong, n.name+" asks for a fence though one of them is alone")
	}
	n.ballot.state = plan.FenceAsked
	n.ballot.ticket++
	return n.ballot.ticket, nil
}

func (n ballots) FenceDecided(ticket uint64, confirmed bool, began time.Time) (bool, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	b := &n.ballot
	if b.ticket != ticket || b.state != plan.FenceAsked && b.state != plan.FenceVoid {
		return false, nil
	}
	switch {
	case b.state == plan.FenceVoid, confirmed && !began.After(b.contact):
		b.state = plan.FenceNone
	case confirmed:
		b.state = plan.FenceConfirmed
	default:
		b.state = plan.FenceFailed
	}
	return b.state == plan.FenceConfirmed, nil
}

func (n ballots) RecordFence(_ context.Context, node, outcome, _ string) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if !n.w.quorum(n.name) {
		return errNoQuorum
	}
	n.w.fenced = append(n.w.fenced, node+" "+outcome)
	return nil
}

// goAloneFenced is the ledger's part of going alone. Holds mu.
func (n *node) goAloneFenced() error {
	if n.ballot.state != plan.FenceConfirmed || n.w.alone != "" || !n.up {
		return errNotFenced
	}
	n.w.alone, n.ballot.state = n.name, plan.FenceNone
	if n.w.rec.Primary == n.peer() {
		n.w.rec.Primary = ""
		n.w.rec.Token++
	}
	for v, o := range n.w.owes {
		if o.to == n.peer() {
			n.w.owes[v] = owed{}
		}
	}
	return nil
}

// devices is what a node fences its peer with.
type devices struct{ *node }

func (n devices) Ready(string) error { return nil }

func (n devices) Fence(ctx context.Context, name, _ string) FenceReport {
	var d device
	n.w.in(func() { d = n.w.device; n.shots++ })
	r := FenceReport{Device: "switch", Began: time.Now()}
	strikes := d.mode == honest || d.mode == mute
	if strikes && !d.late {
		n.w.strike(name)
	}
	select {
	case <-time.After(d.takes):
	case <-ctx.Done():
		if strikes && d.late { // it was on its way
			n.w.strike(name)
		}
		r.Reason = "broken off"
		return r
	}
	if strikes && d.late {
		n.w.strike(name)
	}
	r.Confirmed, r.Refused = d.mode == honest, d.mode == refuses
	return r
}

// strike takes the power of a node. It must not wait for what the node does.
func (w *world) strike(name string) {
	w.in(func() {
		w.shot = append(w.shot, name)
		w.nodes[name].off()
	})
	w.done.Go(func() { w.crash(name) })
}
