package ledger

import (
	"context"
	"fmt"
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

// heardOf sorts the others that keep this node from beginning: those it has not met,
// nor what is taken for them by others, and those that have not given it its seat.
func (l *Ledger) heardOf() (missing, refuse []string, f floor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := len(l.met) > 0
	for _, node := range l.cfg.others() {
		you, ok := l.met[node]
		switch {
		case !ok:
			missing = append(missing, node)
		case l.doubtful(&you):
			fresh = false
			missing = append(missing, node)
		case !l.gave(&you):
			fresh = false
			refuse = append(refuse, node)
		case !you.Blank && you.LastIndex > 1: // it has more than the entry that all begin with
			fresh = false
			f.raise(you)
		}
	}
	if fresh {
		return nil, nil, floor{} // a new group
	}
	return missing, refuse, f
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
	missing, _, _ := l.heardOf()
	if l.isBlank() && len(missing) == len(l.cfg.others()) {
		return fmt.Errorf("begin: none of %s was met: %w", strings.Join(missing, ", "), ErrBlank)
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
	_, refuse, _ := l.heardOf()
	return fmt.Errorf("%s still take another machine for %s: %w", strings.Join(refuse, ", "), l.cfg.Self, ErrSeat)
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
// The term comes first: a crash before the identity is saved leaves a blank node.
func (l *Ledger) begin(because string, without bool) error {
	l.admin.Lock()
	defer l.admin.Unlock()
	missing, refuse, f := l.heardOf()
	if !l.isBlank() || len(missing) > 0 && !without || len(refuse) > 0 || l.usable() != nil {
		return nil
	}
	id := l.id()
	id.Blank = false
	if f != (floor{}) {
		if err := l.passTerm(f.Term); err != nil {
			return err
		}
		id.Floor = &f
	}
	if err := l.saveIdentity(id); err != nil {
		return err
	}
	l.log.Warn("ledger begun on an empty directory", zap.String("because", because), zap.Strings("without", missing),
		zap.Uint64("term", f.Term), zap.Uint64("index", f.LastIndex))
	l.event(Event{Kind: EventBegun, Node: l.cfg.Self, Because: because})
	err := l.startGroup()
	l.kickCatchUp()
	return err
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

// sieve hands what arrives on to raft, without candidates that know too little.
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
	missing, refuse, _ = l.heardOf()
	slices.Sort(missing)
	slices.Sort(refuse)
	return missing, refuse
}
