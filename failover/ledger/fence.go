package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/failover/ledger/record"
	"hapair/failover/plan"
)

// FenceStatus is what arbitration by fencing knows on this node.
type FenceStatus struct {
	State     plan.FenceState // only FenceConfirmed lets a node go on alone
	May       error           // why no fence may be asked for now; nil: it may
	Primaries []string        // of the resources
}

// maxLife bounds Config.Life, in bytes.
const maxLife = 80

// keyFence is set in the stable store while a fence is undecided.
const keyFence = "hapair-fence-asked"

// fences is the memory of arbitration by fencing (rules R24 to R26). mu is a leaf.
type fences struct {
	mu      sync.Mutex
	state   plan.FenceState
	ticket  uint64    // names the last fence that was asked for
	met     bool      // the peer, of arbitration fencing too, has greeted us since we began
	contact time.Time // when the peer was last heard
	life    string    // of the peer, as it said when it greeted us last
	lives   []string  // that it has said before, oldest first
	greeted bool
}

// livesMax bounds what is kept of fences.lives.
const livesMax = 64

// openFence finds out whether a former life asked for a fence that may still be
// under way. Nobody can tell it the outcome: it counts as undecided for as long
// as a fence may take.
func (l *Ledger) openFence() error {
	b, err := l.store.Get([]byte(keyFence))
	if err != nil || len(b) == 0 {
		return err
	}
	l.fence.state, l.fence.ticket = plan.FenceVoid, 1
	return nil
}

// formerFence waits until a fence of a former life has certainly ended.
func (l *Ledger) formerFence() {
	select {
	case <-time.After(l.cfg.FenceTakes):
		if _, err := l.FenceDecided(1, false, time.Time{}); err != nil {
			l.log.Error("the fence of a former life", zap.Error(err))
		}
	case <-l.ctx.Done():
	}
}

// contactWith notes that the peer was heard. What was asked of a device before
// says nothing about now (R26). A witness that is to come is nobody's peer.
func (l *Ledger) contactWith(node string) {
	if l.isWitness(node) {
		return
	}
	f := &l.fence
	f.mu.Lock()
	was := f.state
	f.contact = time.Now()
	switch f.state {
	case plan.FenceAsked:
		f.state = plan.FenceVoid
	case plan.FenceConfirmed, plan.FenceFailed:
		f.state = plan.FenceNone
	case plan.FenceNone, plan.FenceVoid:
	}
	now := f.state
	f.mu.Unlock()
	if was != now {
		l.log.Info("fence does not count", zap.String("peer", node), zap.Stringer("was", was), zap.Stringer("now", now),
			zap.String("because", "the two have met since it was asked for"))
	}
}

// metIn notes a peer that greeted us as one of the same history. One of another
// arbitration may go on without having fenced us.
func (l *Ledger) metIn(you *hello) {
	if l.isWitness(you.Node) {
		return
	}
	l.fence.mu.Lock()
	defer l.fence.mu.Unlock()
	l.fence.met = you.Arbitration == ArbitrationFencing.String()
}

// toldLife keeps what a peer's greeting says of its life: before anything else of
// that life is heard. One that it has said before it said another is over: that greeting
// was read late, as by a goroutine that waited for a disk.
func (l *Ledger) toldLife(node, life string) {
	if l.isWitness(node) { // it has none, and is nobody's peer
		return
	}
	l.fence.mu.Lock()
	defer l.fence.mu.Unlock()
	f := &l.fence
	if life == f.life && f.greeted || life != "" && slices.Contains(f.lives, life) {
		return
	}
	if f.life != "" {
		f.lives = append(f.lives, f.life)
		f.lives = f.lives[max(0, len(f.lives)-livesMax):]
	}
	f.life, f.greeted = life, true
}

// PeerLife returns, in a pair, the life that the other node told when it greeted
// this one last: see Config.Life. greeted says whether it has.
func (l *Ledger) PeerLife() (life string, greeted bool) {
	l.fence.mu.Lock()
	defer l.fence.mu.Unlock()
	return l.fence.life, l.fence.greeted
}

// HearsPeer reports whether, in a pair, the other node has answered this one's last
// question. It waits for nothing.
func (l *Ledger) HearsPeer() bool { return l.reaches(l.dataPeer()) }

// Certain returns the latest instant, on the clock, at which it was certain that a fence of
// this node by the other one would not count, if it was asked for before: the other
// one has since answered what was sent then, or there is no other voter. ok is false where
// there was none. It waits for no disk.
func (l *Ledger) Certain() (at time.Duration, ok bool) {
	if l.Alone() {
		return l.clock(), true
	}
	if p := l.peer(l.dataPeer()); p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		at = p.contact
	}
	return at, at != 0
}

// Fence returns what is known of the fence of the peer. It waits for nothing.
func (l *Ledger) Fence() FenceStatus {
	s := FenceStatus{May: l.mayFence()}
	if s.May == nil {
		if err := l.gains(); errors.Is(err, ErrNothingGained) { // else it is tried, and fails, once a second
			s.May = err
		}
	}
	l.fence.mu.Lock()
	s.State = l.fence.state
	l.fence.mu.Unlock()
	for _, r := range l.Records() {
		if r.Primary != "" {
			s.Primaries = append(s.Primaries, r.Primary)
		}
	}
	return s
}

// mayFence says why this node may not have its peer fenced now.
func (l *Ledger) mayFence() error {
	if a := l.Arbitration(); a != ArbitrationFencing {
		return fmt.Errorf("arbitration is %v: %w", a, ErrNotFencing)
	}
	if err := l.usable(); err != nil {
		return err
	}
	if l.id().Joining || l.unfit() {
		return ErrJoining
	}
	peer := l.dataPeer()
	voters, ok := l.voters()
	if !ok || len(voters) != 2 || !slices.Contains(voters, l.cfg.Self) {
		return fmt.Errorf("the voters are %q: %w", voters, ErrNotPair)
	}
	l.fence.mu.Lock()
	met := l.fence.met
	l.fence.mu.Unlock()
	if !met || !l.voter.caughtUp() {
		return ErrNotMet
	}
	if l.reaches(peer) {
		return ErrAnswers
	}
	return nil
}

// AskFence notes, durably, that the peer is about to be fenced: to be called
// before a device is. It is refused to whoever has not met its peer since it
// began (R25), reaches it, or would gain nothing by it: the copy here is current
// by all that is in the log, and each resource has its Primary here or there. An
// earlier fence has to be decided before. ticket names it to FenceDecided.
func (l *Ledger) AskFence() (ticket uint64, err error) {
	if err := l.mayFence(); err != nil {
		return 0, fmt.Errorf("ask for a fence: %w", err)
	}
	if err := l.gains(); err != nil {
		return 0, fmt.Errorf("ask for a fence: %w", err)
	}
	f := &l.fence
	f.mu.Lock()
	if f.state != plan.FenceNone && f.state != plan.FenceFailed {
		defer f.mu.Unlock()
		return 0, fmt.Errorf("ask for a fence: the last one is %v: %w", f.state, ErrFenceUndecided)
	}
	f.state = plan.FenceAsked
	f.ticket++
	ticket = f.ticket
	f.mu.Unlock()
	if err := l.store.Set([]byte(keyFence), []byte{1}); err != nil {
		f.mu.Lock()
		f.state = plan.FenceNone
		f.mu.Unlock()
		l.diskFailed(err)
		return 0, fmt.Errorf("ask for a fence: %w", err)
	}
	return ticket, nil
}

// gains tells whether any resource could be served here once the peer is off, by
// everything in the log, committed or not.
func (l *Ledger) gains() error {
	s, err := l.replayAll()
	if err != nil {
		return err
	}
	for _, r := range s.Records {
		if r.Primary != "" && r.Has(l.cfg.Self) {
			return nil
		}
	}
	return ErrNothingGained
}

// FenceDecided takes the end of the fence that ticket names. began is the instant
// from which on the peer was off, if confirmed: it counts when the two have not
// met since then, and the answer says whether it does.
func (l *Ledger) FenceDecided(ticket uint64, confirmed bool, began time.Time) (counts bool, err error) {
	f := &l.fence
	f.mu.Lock()
	if ticket != f.ticket || !f.state.Undecided() {
		f.mu.Unlock()
		return false, nil
	}
	switch {
	case f.state == plan.FenceVoid, confirmed && !began.After(f.contact):
		f.state = plan.FenceNone
	case confirmed:
		f.state = plan.FenceConfirmed
	default:
		f.state = plan.FenceFailed
	}
	counts = f.state == plan.FenceConfirmed
	f.mu.Unlock()
	if err := l.store.Set([]byte(keyFence), nil); err != nil {
		l.diskFailed(err)
		return counts, fmt.Errorf("note the end of a fence: %w", err)
	}
	return counts, nil
}

// fenced reports whether the peer's fence is confirmed and counts.
func (l *Ledger) fenced() bool {
	l.fence.mu.Lock()
	defer l.fence.mu.Unlock()
	return l.fence.state == plan.FenceConfirmed
}

// undecided is ErrFenceUndecided while a fence that this node asked for may
// still strike: what it handed over now might go with the one it hands it to (R24).
func (l *Ledger) undecided() error {
	l.fence.mu.Lock()
	defer l.fence.mu.Unlock()
	if l.fence.state.Undecided() {
		return ErrFenceUndecided
	}
	return nil
}

// afterFence settles what a fenced peer held: it answers nothing any more (R2).
func (l *Ledger) afterFence(peer string) {
	l.voter.fenced(peer)
	l.fence.mu.Lock()
	l.fence.state = plan.FenceNone
	l.fence.mu.Unlock()
}

// RecordFence keeps the outcome of fencing a node.
func (l *Ledger) RecordFence(ctx context.Context, node, outcome, reason string) error {
	if len(reason) > record.MaxText {
		reason = reason[:record.MaxText]
	}
	_, err := l.do(ctx, record.Command{Kind: record.FenceLog, Node: node, Outcome: outcome, Reason: reason})
	return err
}
