package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"hapair/failover/ledger/record"
)

// A witness comes and goes while the group runs. Both data nodes are told by their
// operator who is to be there (Arrange); while that is not who is there, and both have
// been told the same, the leader goes a step at a time, each of which is an entry of
// the log (raft's own, of the configuration) that is committed before the next:
//
//	a, b  <->  a, b and w without a vote  <->  a, b, w
//
// The one in the middle is for the sake of rule R28. It is committed by both data nodes,
// for both of its voters are: so both have it, durably, before a majority can be had
// without one of them, and by what is in its log neither goes alone. And whoever has in
// its log that w is gone knows that the middle was committed, so that nobody decides
// with w's vote any more.

// arranged is a node's answer to callArrange.
type arranged struct {
	Witness string `json:"witness,omitempty"` // by its operator's configuration
	Blank   bool   `json:"blank,omitempty"`   // it remembers nothing, and has not joined the group yet
	Fresh   bool   `json:"fresh,omitempty"`   // who asks has renewed each lease that is held here, of late
	Why     string `json:"why,omitempty"`     // the voters are not those of the configuration yet
}

// maxWhy bounds what another node says it waits for, in bytes.
const maxWhy = 4096

func (a *arranged) check() error {
	if len(a.Witness) > record.MaxName || len(a.Why) > maxWhy {
		return fmt.Errorf("%w: a witness's name of %d bytes, a reason of %d", ErrWire, len(a.Witness), len(a.Why))
	}
	return nil
}

const (
	arrangeEvery = 50 * time.Millisecond // while something goes on
	arrangeLook  = time.Second           // while nothing does
	arrangeLimit = 2 * time.Second       // of one step
	countLimit   = 10 * time.Second      // for a member without a vote: it is let go again, and tried anew
)

// Arrange says which witness is to be there, "" for none, and by which of manual and
// fencing the two decide without one. It returns at once; Status tells what comes of it.
// It has no effect before the other data node was told the same.
func (l *Ledger) Arrange(witness string, pair Arbitration) error {
	if len(l.cfg.data()) != 2 || l.isWitness(l.cfg.Self) {
		return fmt.Errorf("change of the witness: %w", ErrNotPair)
	}
	if slices.Contains(l.cfg.data(), witness) || pair != ArbitrationManual && pair != ArbitrationFencing {
		return fmt.Errorf("change of the witness to %q, without it %v: %w", witness, pair, ErrConfig)
	}
	l.mu.Lock()
	was := l.want
	l.want, l.alike = witness, pair
	l.mu.Unlock()
	l.meetPeers()
	l.log.Info("another witness is wanted", zap.String("was", was), zap.String("now", witness), zap.String("because", "the configuration"))
	l.lookAgain()
	return nil
}

// arrange runs on each data node.
func (l *Ledger) arrange() {
	seen, last, wait := l.thirdText(), "", arrangeEvery
	for {
		ctx, cancel := context.WithTimeout(l.ctx, arrangeLimit)
		why := l.arrangeOnce(ctx)
		cancel()
		l.noteArranging(why)
		if now := l.thirdText(); now != seen {
			l.log.Warn("voters changed", zap.String("was", seen), zap.String("now", now), zap.String("because", "the configuration"))
			l.event(Event{Kind: EventVoters, Node: l.cfg.Self, Because: "was " + seen + ", now " + now})
			seen = now
			if l.Arbitration() == ArbitrationFencing {
				l.resetPeers() // both have to hear of the other that it fences (R25)
			}
			l.kick()
			l.hands.resettle()
		}
		l.meetPeers()
		if wait = min(2*wait, arrangeLook); why != last {
			wait = arrangeEvery
		}
		last = why
		select {
		case <-time.After(wait):
		case <-l.wantCh:
			wait = arrangeEvery
		case <-l.ctx.Done():
			return
		}
	}
}

// wantsNow notes which witness a node is configured with. Where that is news, this one
// looks again.
func (l *Ledger) wantsNow(node, witness string) {
	l.mu.Lock()
	was, known := l.told[node]
	l.told[node] = witness
	l.mu.Unlock()
	if !known || was != witness {
		l.lookAgain()
	}
}

func (l *Ledger) lookAgain() {
	select {
	case l.wantCh <- struct{}{}:
	default: // it is about to
	}
}

// thirdText says who is there beside the two, for people.
func (l *Ledger) thirdText() string {
	s, found := l.third(l.servers())
	switch {
	case !found:
		return "no witness"
	case s.Suffrage == raft.Voter:
		return "witness " + string(s.ID)
	}
	return "witness " + string(s.ID) + " without a vote"
}

func (l *Ledger) noteArranging(why string) {
	l.mu.Lock()
	was := l.arranging
	l.arranging = why
	l.mu.Unlock()
	if was != why && why != "" {
		l.log.Info("voters are to be others", zap.String("waits", why))
	}
}

// arrangedHere answers a node that asks.
func (l *Ledger) arrangedHere(node string) *arranged {
	id, fresh := l.id(), l.hands.fresh(node)
	l.mu.Lock()
	defer l.mu.Unlock()
	return &arranged{Witness: l.want, Blank: id.Blank, Fresh: fresh, Why: l.arranging[:min(len(l.arranging), maxWhy)]}
}

// asArranged tells whether the voters are who is wanted.
func (l *Ledger) asArranged(servers []raft.Server) bool {
	s, found := l.third(servers)
	if want := l.wanted(); want != "" {
		return found && string(s.ID) == want && s.Suffrage == raft.Voter
	}
	return !found
}

// arrangeOnce goes one step, if this node leads. It says why the voters are not those
// of the configuration, "" when they are.
func (l *Ledger) arrangeOnce(ctx context.Context) (why string) {
	g := l.group()
	switch {
	case l.isBlank() || l.id().Joining || l.forked(): // those that were left come back first
		return ""
	case g == nil:
		return "the ledger restarts"
	case l.asArranged(configuration(g.raft)):
		return ""
	case g.raft.State() == raft.Leader:
		return l.arrangeAsLeader(ctx, g)
	}
	_, leader := g.raft.LeaderWithID()
	p := l.peer(string(leader))
	if p == nil {
		return "no quorum: the voters change while both data nodes run"
	}
	if a, err := l.askArranged(ctx, p); err != nil {
		return err.Error()
	} else if a.Witness != l.wanted() {
		return differ(l.cfg.Self, l.wanted(), p.node, a.Witness)
	} else if a.Why != "" {
		return a.Why
	}
	return p.node + ", which leads, is at it"
}

// forked tells whether this node's group is one of three that is not whole again. It is
// once all three vote, or both data nodes where no third is wanted any more: one that has
// no vote yet is let go then.
func (l *Ledger) forked() bool {
	id := l.id()
	if !id.Forked {
		return false
	}
	votes := votersOf(l.servers())
	if len(votes) < 3 && (l.wanted() != "" || len(votes) != 2 || slices.ContainsFunc(votes, l.isWitness)) {
		return true
	}
	l.admin.Lock()
	defer l.admin.Unlock()
	id = l.id()
	id.Forked = false
	if err := l.saveIdentity(id); err != nil {
		l.diskFailed(err)
		return true
	}
	l.resetPeers() // the other one has heard of arbitration by a witness (R25)
	return false
}

// differ says that two nodes are configured with other witnesses.
func differ(a, wa, b, wb string) string {
	name := func(w string) string {
		if w == "" {
			return "no witness"
		}
		return "the witness " + w
	}
	return fmt.Sprintf("%s is configured with %s, %s with %s: put the same configuration on both, then hactl config apply on both", a, name(wa), b, name(wb))
}

// askArranged asks another node.
func (l *Ledger) askArranged(ctx context.Context, p *peer) (*arranged, error) {
	r, _, err := p.call(ctx, call{Kind: callArrange, Incarnation: l.view.inc(), Data: []byte(l.wanted()), Budget: l.cfg.Timing.Heartbeat})
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s is not reached: %w", p.node, err)
	case r.Status == statusOK && r.Arranged != nil:
		if err := r.Arranged.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", p.node, err)
		}
		return r.Arranged, nil
	}
	return nil, fmt.Errorf("%s does not say which witness it is configured with; an agent of an earlier release cannot (%s)", p.node, r.Detail)
}

// arrangeAsLeader goes the next step, after it has looked at all that it needs.
func (l *Ledger) arrangeAsLeader(ctx context.Context, g *group) (why string) {
	if !l.joinMu.TryLock() {
		return "another change of the voters is under way"
	}
	defer l.joinMu.Unlock()
	servers, at, err := l.storedMembership()
	if err != nil {
		return err.Error()
	}
	other, want := l.peer(l.dataPeer()), l.wanted()
	votes := votersOf(servers)
	if other == nil || !slices.Contains(votes, l.cfg.Self) || !slices.Contains(votes, other.node) {
		return fmt.Sprintf("%s is no voter now: the witness changes while both data nodes run", l.dataPeer())
	}
	a, err := l.askArranged(ctx, other)
	if err != nil {
		return err.Error()
	}
	if a.Witness != want {
		return differ(l.cfg.Self, want, other.node, a.Witness)
	}
	third, found := l.third(servers)
	name := string(third.ID)
	switch {
	case !found:
		return l.invite(ctx, g, want, at)
	case name == want && third.Suffrage != raft.Voter:
		return l.count(ctx, g, want, at)
	case third.Suffrage == raft.Voter:
		if !a.Fresh || !l.hands.fresh(other.node) {
			return fmt.Sprintf("a lease is not renewed by both of %s and %s: without the vote of %s it would run out", l.cfg.Self, other.node, name)
		}
		return l.dismiss(ctx, g, name, at)
	}
	return l.remove(ctx, g, name, at)
}

// stepped is what there is to say after a step was tried.
func stepped(r callReply, what string) string {
	if r.Status == statusOK {
		return what
	}
	return what + ": " + r.Detail
}

// invite makes a witness a member without a vote: one that has joined the group, or was
// a voter of it before and remembers what it acknowledged then.
func (l *Ledger) invite(ctx context.Context, g *group, node string, at uint64) (why string) {
	p := l.peer(node)
	if p == nil {
		return node + " is not known yet"
	}
	a, err := l.askArranged(ctx, p)
	switch {
	case errors.Is(err, ErrSplitBrain), errors.Is(err, ErrSuperseded):
		return fmt.Sprintf("%s was a witness before, and has missed too much: stop it, empty its state_dir, start it (%v)", node, err)
	case err != nil:
		return err.Error()
	case a.Blank:
		return node + " has not met both data nodes yet"
	}
	return stepped(g.addLearner(ctx, node, at), node+" gets the ledger")
}

// count gives the witness its vote, once it knows everything, would promise, and has
// granted what is held. One for which that takes long is let go: meanwhile neither of
// the two could go on without the other.
func (l *Ledger) count(ctx context.Context, g *group, node string, at uint64) (why string) {
	if inc := l.view.inc(); !l.counting.of(inc, at) {
		l.counting = parting{inc, at, l.clock()}
	}
	p := l.peer(node)
	wait, cancel := context.WithTimeout(ctx, arrangeLimit/2)
	defer cancel()
	if p == nil || !l.awaitReady(wait, g, p) {
		if l.clock() > l.counting.since+countLimit {
			return l.remove(ctx, g, node, at)
		}
		return node + " does not have the whole ledger yet, or promises nothing yet"
	}
	return stepped(g.addVoter(ctx, node, at), node+" gets its vote")
}

// dismiss takes the witness its vote, unless the pair could do nothing without it.
func (l *Ledger) dismiss(ctx context.Context, g *group, node string, at uint64) (why string) {
	for name, r := range l.Records() {
		for _, data := range l.cfg.data() {
			if len(r.InSync) > 0 && !r.Has(data) {
				return fmt.Sprintf("%s has no current copy of %s: without %s nobody could take over from the other one for now", data, name, node)
			}
		}
	}
	r := g.await(ctx, func() raft.Future { return g.raft.DemoteVoter(raft.ServerID(node), at, enqueueTimeout) })
	return stepped(r, node+" loses its vote")
}

// parting is since when something is known of an entry of the log: that a witness has no
// vote any more, or none yet.
type parting struct {
	incarnation, at uint64
	since           time.Duration // on the ledger's clock
}

func (p *parting) of(incarnation, at uint64) bool { return p.incarnation == incarnation && p.at == at }

// remove ends the membership of a witness without a vote, once nothing that its promise
// was counted for can stand: afterwards one of the two may go alone, by its own promise.
func (l *Ledger) remove(ctx context.Context, g *group, node string, at uint64) (why string) {
	inc := l.view.inc()
	if !l.parting.of(inc, at) {
		if r := g.barrier(ctx, enqueueTimeout); r.Status != statusOK {
			return stepped(r, "that "+node+" has no vote is not with both data nodes yet")
		}
		l.parting = parting{inc, at, l.clock()}
	}
	if l.clock() < l.parting.since+l.outlast() {
		return "leases for which " + node + " was counted run out"
	}
	r := g.remove(ctx, node, at)
	return stepped(r, node+" leaves")
}
