package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"hapair/failover/ledger/promise"
)

// voter is this node's side of other nodes' leases. Nothing on this path waits
// for a disk or for raft.
type voter struct {
	l *Ledger

	mu     sync.Mutex
	table  *promise.Table
	caught atomic.Bool // has applied, since it started, all that was committed before
}

const notCaughtUp promise.Refusal = "voter has not yet caught up with the ledger since it started"

// newVoter: forgotten bounds each lease that this node may have promised in a former life.
func newVoter(l *Ledger, forgotten time.Duration) *voter {
	return &voter{l: l, table: promise.New(l.clock(), forgotten, l.cfg.Timing.Lease, l.cfg.Timing.Margin)}
}

// judge answers a batch of renewals and hand-backs from a node.
func (v *voter) judge(node string, ask leaseAsk) leaseReply {
	reply := leaseReply{Incarnation: v.l.view.inc()}
	if ask.Incarnation != reply.Incarnation {
		reply.Refused = "another incarnation"
		return reply
	}
	if v.l.isBlank() {
		reply.Refused = "its ledger is empty, and it has not met every other voter"
		return reply
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.l.clock()
	for _, it := range ask.Items {
		reply.Results = append(reply.Results, v.one(now, node, ask.Session, it))
	}
	return reply
}

func (v *voter) one(now time.Duration, node, session string, it leaseItem) leaseResult {
	a := promise.Ask{
		Resource: it.Resource, Holder: node, Tenure: it.Tenure,
		Session: session, Seq: it.Seq, Duration: it.Duration,
	}
	if it.Release {
		v.table.Release(now, a)
		return leaseResult{}
	}
	if !v.caught.Load() {
		return leaseResult{Refused: notCaughtUp}
	}
	r, _ := v.l.view.get(it.Resource)
	res := leaseResult{Refused: v.table.Renew(now, a, promise.Known{Tenure: r.Tenure, Primary: r.Primary})}
	switch res.Refused {
	case promise.Promised:
		_, res.Wait = v.table.Holder(now, it.Resource)
	case promise.TooYoung:
		res.Wait = v.table.ReadyAt() - now
	case promise.TooLong:
		res.Longest = v.table.Longest()
	default: // refused, and time alone does not change that
	}
	return res
}

// lapsed answers whether no promise stands to anybody but node.
func (v *voter) lapsed(resource, node string, c call) (lapsed, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	lapsed, known = v.table.Lapsed(v.l.clock(), resource, node, c.Minimum)
	return lapsed && v.caught.Load(), known && v.caught.Load()
}

func (v *voter) ready() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.caught.Load() && v.table.Ready(v.l.clock())
}

// outlasted tells whether what this voter promised before it restarted has run out.
func (v *voter) outlasted() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.table.Ready(v.l.clock())
}

// caughtUp takes no lock: it is asked with view.mu held, and judge asks the view
// with v.mu held.
func (v *voter) caughtUp() bool { return v.caught.Load() }

func (v *voter) setCaught(yes bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.caught.Store(yes)
}

// forget drops what was learnt of tenures: a new incarnation counts anew.
func (v *voter) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.table.Forget()
}

// fenced drops the promises to a node that is certainly off.
func (v *voter) fenced(node string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.table.Fenced(v.l.clock(), node)
}

// serveLeases answers renewals on one stream until it ends.
func (l *Ledger) serveLeases(node string, c net.Conn) {
	for {
		var ask leaseAsk
		if err := readMessage(c, &ask); err != nil {
			l.streamEnded(node, PurposeLease, err)
			return
		}
		l.heard(ask.Stamp)
		l.contactWith(node)
		l.heardSeat(node)
		reply := l.voter.judge(node, ask)
		reply.Stamp = l.stamp()
		if err := c.SetWriteDeadline(time.Now().Add(l.cfg.Timing.silence())); err != nil {
			l.streamEnded(node, PurposeLease, err)
			return
		}
		if err := writeMessage(c, reply); err != nil {
			l.streamEnded(node, PurposeLease, err)
			return
		}
	}
}

func (l *Ledger) streamEnded(node, purpose string, err error) {
	if !errors.Is(err, io.EOF) {
		l.log.Debug("ledger stream ended", zap.String("peer", node), zap.String("purpose", purpose), zap.Error(err))
	}
}

// catchUp waits, after each start and each wipe, until this node has applied
// everything that was committed before. Until then it may believe in a Primary
// long since replaced, and must not promise it anything.
func (l *Ledger) catchUp() {
	forgot := false
	for {
		wait := 20 * time.Millisecond
		if l.voter.caughtUp() || l.tryCatchUp() {
			wait = time.Hour
			if !forgot {
				forgot = l.voter.ready() && l.forgetLongest()
			}
			if !forgot {
				wait = l.cfg.Timing.Lease
			}
		}
		select {
		case <-time.After(wait):
		case <-l.catchCh:
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *Ledger) kickCatchUp() {
	select {
	case l.catchCh <- struct{}{}:
	default:
	}
}

func (l *Ledger) tryCatchUp() bool {
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	g := l.group()
	if g == nil {
		return false
	}
	r := l.askLeader(ctx, g, call{Kind: callBarrier, Incarnation: l.view.inc()})
	if r.Status != statusOK || !l.waitApplied(ctx, g, r.Index) || l.group() != g {
		return false
	}
	l.voter.setCaught(true)
	l.tellAll()
	l.event(Event{Kind: EventCaughtUp, Node: l.cfg.Self, Because: fmt.Sprintf("applied up to entry %d, all that was committed before", r.Index)})
	l.kick()
	return true
}
