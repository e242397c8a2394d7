package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// Shutdown hands back every lease and, as leader, the leadership, then closes.
// What could not be handed over in time runs out by itself; the error says so.
func (l *Ledger) Shutdown(ctx context.Context) error {
	if err := l.handBack(ctx); err != nil {
		// A courtesy: without it the others wait for the lease and elect.
		l.log.Info("left without handing everything over", zap.Error(err))
	}
	return l.Close()
}

// handBack hands over all there is, unless a fence that this node asked for may
// still strike the one it would hand it to (R24).
func (l *Ledger) handBack(ctx context.Context) (err error) {
	if err := l.undecided(); err != nil {
		return err
	}
	for _, name := range l.hands.names() {
		err = errors.Join(err, l.Release(ctx, name))
	}
	return errors.Join(err, l.handOverLead(ctx))
}

// handOverLead makes a reachable data node the leader in our place.
func (l *Ledger) handOverLead(ctx context.Context) error {
	g := l.group()
	if g == nil || g.raft.State() != raft.Leader {
		return nil
	}
	l.transferring.Add(1)
	defer l.transferring.Add(-1)
	err := error(nil)
	for _, node := range voterNames(g.raft) {
		p := l.peer(node)
		if p == nil || l.isWitness(node) {
			continue
		}
		select {
		case <-p.returned():
		default:
			err = errors.Join(err, fmt.Errorf("hand the ledger's leadership to %s: it cannot be reached", node))
			continue
		}
		r := g.await(ctx, func() raft.Future {
			return g.raft.LeadershipTransferToServer(raft.ServerID(node), raft.ServerAddress(node))
		})
		if r.Status == statusOK {
			return nil
		}
		err = errors.Join(err, fmt.Errorf("hand the ledger's leadership to %s: %s", node, r.Detail))
	}
	return err
}

// Leave hands everything over so that the other node can run alone, and stops.
// In a pair of two voters this node is none afterwards, which the other has
// committed; it becomes one again when it is next opened (or by Rejoin). Data
// must have been handed over before: an in-sync copy that leaves without
// Exclude is still counted as one. It is refused while a fence that this node
// asked for is undecided.
func (l *Ledger) Leave(ctx context.Context) error {
	if err := l.handBack(ctx); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	if l.pair() && !l.isOnlyVoter() {
		if err := l.removeSelf(ctx); err != nil {
			return fmt.Errorf("leave: %w", err)
		}
	}
	l.admin.Lock()
	defer l.admin.Unlock()
	l.mu.Lock()
	l.left = true
	l.mu.Unlock()
	l.hands.drop("left")
	l.stopGroup()
	l.resetPeers()
	l.log.Info("ledger left", zap.String("because", "asked to"))
	l.event(Event{Kind: EventLeft, Node: l.cfg.Self, Because: "asked to"})
	return nil
}

func (l *Ledger) isOnlyVoter() bool {
	names, _ := l.voters()
	return lone(names, l.cfg.Self)
}

func (l *Ledger) removeSelf(ctx context.Context) error {
	for {
		g := l.group()
		if g == nil {
			return ErrClosed
		}
		detail := "still leading"
		if g.raft.State() != raft.Leader {
			r := l.askLeader(ctx, g, call{Kind: callRemove, Incarnation: l.view.inc()})
			if r.Status == statusOK {
				return nil
			}
			detail = r.Detail
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", detail, ErrNoQuorum, ctx.Err())
		}
	}
}

// Rejoin takes part again after Leave, without a new Open.
func (l *Ledger) Rejoin(context.Context) error {
	l.admin.Lock()
	defer l.admin.Unlock()
	l.mu.Lock()
	was := l.left
	l.left = false
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if !was {
		return nil
	}
	l.voter.setCaught(false)
	err := l.startGroup()
	l.kickCatchUp()
	return err
}
