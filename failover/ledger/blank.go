package ledger

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// A voter of three that finds its directory empty may have been one before. Then it
// has forgotten what it voted and acknowledged, and what was committed by it and one
// other would be lost if it now helped the third to lead. So it is blank: it takes no
// part in raft before it has met every other voter since. From then on it helps
// nobody who knows less than any of them did: what was committed with its help is
// with one of them. In a new group nobody knows anything, and two are enough.
//
// In a pair alone there is no such third: what was committed is with both.

// Keys under which hashicorp/raft keeps its votes.
const (
	keyTerm     = "CurrentTerm"
	keyVoteTerm = "LastVoteTerm"
	keyVoteFor  = "LastVoteCand"
)

// floor is what a candidate must have to get the vote of a voter that was blank.
type floor struct {
	Term      uint64 `json:"term"` // the highest that anybody had reached
	LastTerm  uint64 `json:"lastTerm"`
	LastIndex uint64 `json:"lastIndex"`
}

func (f *floor) raise(h hello) {
	f.Term = max(f.Term, h.Term, h.LastTerm) // a voter of release 0 tells no term
	if f.reached(h.LastTerm, h.LastIndex) {
		f.LastTerm, f.LastIndex = h.LastTerm, h.LastIndex
	}
}

// floorOf is what the log of a group has to have that goes on as one of it tells.
func floorOf(you hello) *floor {
	f := &floor{}
	f.raise(you)
	return f
}

// reached: a log that ends so has all that the floor stands for, as raft compares logs.
func (f *floor) reached(term, index uint64) bool {
	return f == nil || term > f.LastTerm || term == f.LastTerm && index >= f.LastIndex
}

// isBlank tells whether this node takes no part in raft yet.
func (l *Ledger) isBlank() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ident.Blank
}

// noteMet keeps what a peer told, while this node is blank.
func (l *Ledger) noteMet(you hello) {
	l.mu.Lock()
	blank := l.ident.Blank
	if blank {
		l.met[you.Node] = you
	}
	l.mu.Unlock()
	if blank {
		select {
		case l.metCh <- struct{}{}:
		default:
		}
	}
}

// known is what a blank node has heard of the others' ledgers.
type known struct {
	missing []string // who is still to be met
	refuse  []string // who takes another machine for this node yet
	fresh   bool     // nobody knows anything: all begin anew, as configured
	joins   bool     // the group goes on, and this node is no voter of it
	best    hello    // of that group: the highest incarnation
	floor   floor
}

// heardOf makes up what was heard: those that it has not met, nor what is taken for
// them by others, and those that have not given it its seat, keep it from beginning.
func (l *Ledger) heardOf() (k known) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k.fresh, k.joins = len(l.met) > 0, true
	for _, node := range l.toMeet() {
		you, ok := l.met[node]
		switch {
		case !ok:
			k.missing = append(k.missing, node)
		case l.doubtful(&you):
			k.fresh = false
			k.missing = append(k.missing, node)
		case !l.gave(&you):
			k.fresh = false
			k.refuse = append(k.refuse, node)
		case l.knowsNothing(&you):
		default:
			k.fresh = false
			k.joins = k.joins && !slices.Contains(you.Voters, l.cfg.Self)
			k.floor.raise(you)
			if you.Incarnation > k.best.Incarnation {
				k.best = you
			}
		}
	}
	k.joins = k.joins && k.best.Node != ""
	if k.fresh {
		k.missing = nil // a new group, which begins with two
	}
	return k
}

// knowsNothing: who greeted so has no more than the entry that all begin with, and
// that says what this node is configured with.
func (l *Ledger) knowsNothing(you *hello) bool {
	if you.Blank || you.Joining {
		return true
	}
	if you.LastIndex > 1 {
		return false
	}
	for _, node := range you.Voters {
		if !slices.ContainsFunc(l.cfg.Voters, func(v Voter) bool { return v.Node == node }) {
			return false
		}
	}
	return len(you.Voters) == 0 || len(you.Voters) == len(l.cfg.Voters)
}

// toMeet are those that a blank node has to meet: all others of its group, and of
// which that is say those that know it. As long as nobody is met who does: who is
// configured. mu is held.
func (l *Ledger) toMeet() []string {
	members, several := []string{}, false
	for _, you := range l.met {
		if !you.Blank && !you.Joining {
			members = append(members, you.Voters...)
			if !lone(you.Voters, you.Node) { // else who has no vote never had one in it
				members, several = append(members, you.Learners...), true
			}
		}
	}
	if len(members) == 0 {
		return l.cfg.others()
	}
	if several { // of a group of one nobody else was ever a voter
		members = append(members, l.cfg.data()...)
	}
	slices.Sort(members)
	members = slices.Compact(members)
	return slices.DeleteFunc(members, func(n string) bool { return n == l.cfg.Self })
}

// doubtful: another voter takes another machine for this one. mu is held.
func (l *Ledger) doubtful(you *hello) bool {
	for _, other := range l.met {
		if s := other.Seats[you.Node]; s.Machine != "" && you.Machine != "" && s.Machine != you.Machine {
			return true
		}
	}
	return false
}

// Begin has a blank node vote though not every other voter was met, by an operator's
// word that those are gone for good. What was committed by this node and such a one
// alone is lost. At least one must have been met. Success where nothing is blank.
func (l *Ledger) Begin(ctx context.Context, reason string) error {
	if err := l.usable(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if k := l.heardOf(); l.isBlank() && len(k.missing) == len(l.cfg.others()) {
		return fmt.Errorf("begin: none of %s was met: %w", strings.Join(k.missing, ", "), ErrBlank)
	}
	l.mu.Lock()
	l.vouched = true
	l.mu.Unlock()
	for {
		if err := l.begin(reason, true); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if !l.isBlank() {
			return nil
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return fmt.Errorf("begin: %w: %w", l.stillRefused(), ctx.Err())
		case <-l.ctx.Done():
			return ErrClosed
		}
	}
}

// stillRefused says who has not given this node its seat.
func (l *Ledger) stillRefused() error {
	return fmt.Errorf("%s still take another machine for %s: %w", strings.Join(l.heardOf().refuse, ", "), l.cfg.Self, ErrSeat)
}

// awaitMeetings begins as soon as enough was heard.
func (l *Ledger) awaitMeetings() {
	for l.isBlank() {
		select {
		case <-l.metCh:
		case <-l.ctx.Done():
			return
		}
		if err := l.begin("every other voter was met", false); err != nil {
			l.diskFailed(err)
			return
		}
	}
}

// begin takes part in raft, unless somebody is still to be met and not done without.
// A group that goes on gives its log, its first entry too, which is not what this node
// is configured with where a witness has come or gone. The term comes first: a crash
// before the identity is saved leaves a blank node.
func (l *Ledger) begin(because string, without bool) error {
	l.admin.Lock()
	defer l.admin.Unlock()
	k := l.heardOf()
	if !l.isBlank() || len(k.missing) > 0 && !without || len(k.refuse) > 0 || l.usable() != nil {
		return nil
	}
	if k.joins {
		err := l.adopt(k.best, "its group goes on, and this node is no voter of it yet")
		l.poke()
		return err
	}
	id := l.id()
	id.Blank = false
	if err := l.beginLog(&id, &k); err != nil {
		return err
	}
	if err := l.saveIdentity(id); err != nil {
		return err
	}
	l.log.Warn("ledger begun on an empty directory", zap.String("because", because), zap.Strings("without", k.missing),
		zap.Uint64("term", k.floor.Term), zap.Uint64("index", k.floor.LastIndex))
	l.event(Event{Kind: EventBegun, Node: l.cfg.Self, Because: because})
	err := l.startGroup()
	l.kickCatchUp()
	return err
}

// beginLog makes the store what a blank node begins with.
func (l *Ledger) beginLog(id *identity, k *known) error {
	if k.best.Node == "" {
		return l.bootstrap()
	}
	last, err := l.store.LastIndex()
	if err == nil && last > 0 { // an entry of the release before, or of a beginning that was broken off
		err = l.store.DeleteRange(1, last)
	}
	if err == nil {
		err = l.passTerm(max(k.floor.Term, 1))
	}
	if err != nil {
		return err
	}
	id.Floor, id.Incarnation, id.Lineage = &k.floor, k.best.Incarnation, k.best.Lineage
	l.view.reset(*id)
	return nil
}

// passTerm has raft begin in a term in which it has no vote any more: it may have
// given one in each up to that.
func (l *Ledger) passTerm(term uint64) error {
	const nobody = "-" // no node is called so
	if err := l.store.Set([]byte(keyVoteFor), []byte(nobody)); err != nil {
		return err
	}
	if err := l.store.SetUint64([]byte(keyVoteTerm), term); err != nil {
		return err
	}
	return l.store.SetUint64([]byte(keyTerm), term)
}

// belowFloor tells whether a log that ends so must not lead by this node's help.
func (l *Ledger) belowFloor(term, index uint64) bool { return !l.id().Floor.reached(term, index) }

// sieve hands what arrives on to raft, without candidates that know too little, and
// snapshots that this node has.
func (t *transport) sieve(from <-chan raft.RPC, to chan<- raft.RPC) {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-from:
		case <-t.layer.done:
			return
		}
		if answer := t.denied(rpc.Command); answer != nil {
			rpc.Respond(answer, nil)
			continue
		}
		if answer := t.had(rpc.Command); answer != nil {
			_, err := io.Copy(io.Discard, rpc.Reader) // what follows on this stream is behind it
			rpc.Respond(answer, err)
			continue
		}
		if c, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
			fit, answer := t.fitted(c)
			if answer != nil {
				rpc.Respond(answer, nil)
				continue
			}
			rpc.Command = fit
		}
		select {
		case to <- rpc:
		case <-t.layer.done:
			return
		}
	}
}

// denied answers a candidate below the floor, nil for everything else.
func (t *transport) denied(command any) any {
	switch c := command.(type) {
	case *raft.RequestVoteRequest:
		if t.l.belowFloor(c.LastLogTerm, c.LastLogIndex) {
			return &raft.RequestVoteResponse{RPCHeader: t.header(c.RPCHeader), Term: c.Term}
		}
	case *raft.RequestPreVoteRequest:
		if t.l.belowFloor(c.LastLogTerm, c.LastLogIndex) {
			return &raft.RequestPreVoteResponse{RPCHeader: t.header(c.RPCHeader), Term: c.Term}
		}
	}
	return nil
}

// had answers a snapshot of which everything is applied here: one that comes twice, as
// over a slow network. raft would go back to it, and forget what was logged behind it,
// acknowledged or not, and who votes by that. nil for everything else. All that it stands
// for is committed, so the leader learns nothing from the answer but where to go on.
func (t *transport) had(command any) any {
	c, ok := command.(*raft.InstallSnapshotRequest)
	if g := t.l.group(); !ok || g == nil || g.layer != t.layer || c.Term < g.raft.CurrentTerm() || c.LastLogIndex > g.raft.AppliedIndex() {
		return nil
	}
	return &raft.InstallSnapshotResponse{RPCHeader: t.header(c.RPCHeader), Term: c.Term, Success: true}
}

func (t *transport) header(asked raft.RPCHeader) raft.RPCHeader {
	self := []byte(t.l.cfg.Self)
	return raft.RPCHeader{ProtocolVersion: asked.ProtocolVersion, ID: self, Addr: self}
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.rpcs }

// mayRun says why this node must not ask for votes, nil when it may.
func (t *transport) mayRun() error {
	if t.l.quietWitness() {
		return errWitness
	}
	if index, term := t.l.lastLog(); t.l.belowFloor(term, index) {
		return errBelowFloor
	}
	return nil
}

// missing lists who is still to be met by a blank node, and who refuses it its seat,
// sorted; nobody by any other.
func (l *Ledger) missing() (missing, refuse []string) {
	if !l.isBlank() {
		return nil, nil
	}
	k := l.heardOf()
	slices.Sort(k.missing)
	slices.Sort(k.refuse)
	return k.missing, k.refuse
}
