package ledger

import (
	"context"
	"fmt"
)

// Lapsed asks the voters whether every promise for the resource to anybody but
// this node has run out, and returns true when a majority says so. It errs with
// ErrNoQuorum when fewer than a majority can tell: unreachable, or restarted
// too lately to know.
//
// The answer is final when this node is the resource's Primary here: the voters
// asked refuse older tenures from then on. Otherwise it is true of the moment
// only, and the lease itself, which is granted to one at a time, decides.
func (l *Ledger) Lapsed(ctx context.Context, resource string) (lapsed bool, err error) {
	voters, ok := l.voters()
	if !ok {
		return false, fmt.Errorf("lapsed %s: %w", resource, ErrNoQuorum)
	}
	c := call{Kind: callLapsed, Resource: resource, Incarnation: l.view.inc(), Budget: l.cfg.Timing.silence()}
	if r, _ := l.view.get(resource); r.Primary == l.cfg.Self {
		c.Minimum = r.Tenure
	}
	answers := make(chan callReply, len(voters))
	for _, node := range voters {
		go func() { answers <- l.askLapsed(ctx, node, c) }()
	}
	yes, no := 0, 0
	quorum := len(voters)/2 + 1
	for range voters {
		switch r := <-answers; {
		case r.Known && r.Lapsed:
			yes++
		case r.Known:
			no++
		}
		if yes >= quorum {
			return true, nil
		}
	}
	if yes+no < quorum {
		return false, fmt.Errorf("lapsed %s: %d of %d voters can tell: %w", resource, yes+no, len(voters), ErrNoQuorum)
	}
	return false, nil
}

func (l *Ledger) askLapsed(ctx context.Context, node string, c call) callReply {
	if node == l.cfg.Self {
		lapsed, known := l.voter.lapsed(c.Resource, node, c)
		return callReply{Status: statusOK, Lapsed: lapsed, Known: known}
	}
	p := l.peer(node)
	if p == nil {
		return callReply{}
	}
	r, _, err := p.call(ctx, c)
	if err != nil || r.Status != statusOK {
		return callReply{}
	}
	return r
}

// PromiseLapsed tells whether this node's own voter has no promise standing to
// anybody else: a cheap hint that an earlier lease may have run out.
func (l *Ledger) PromiseLapsed(resource string) bool {
	lapsed, known := l.voter.lapsed(resource, l.cfg.Self, call{})
	return lapsed && known
}
