package ledger

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// A node's name outlives its machine. Each directory that a ledger was begun in is a
// machine of its own, with an identity that goes into every greeting; and each voter
// keeps, durably, which machine it takes for which node: who has the seat. A machine
// that was replaced is refused, whatever its own ledger says: it has a vote, a log and
// a copy of the data under a name that is another's now.
//
// Who comes with an empty directory takes a seat over, if the one that has it is
// silent. It does nothing before every other voter has given it the seat: so there is
// no majority with which the old machine could still decide anything, and what it had
// decided is below the floor of the new one (blank.go).

// Bounds of what a greeting tells of seats.
const (
	maxMachine = 63
	maxSeats   = 16
	keepFormer = 8 // machines remembered as replaced, for each seat
)

// keySeats is where the stable store keeps the seats.
const keySeats = "hapair-seats"

// seat is who is taken for a node.
type seat struct {
	Machine string   `json:"machine,omitempty"` // "": nobody, the last one is gone for good
	Turn    uint64   `json:"turn"`              // grows with every change; the highest counts
	Former  []string `json:"former,omitempty"`  // who had it before, and gets it back never
	Open    bool     `json:"open,omitempty"`    // an agent that tells no identity was here: whoever tells one next has it
	// Only in a greeting. Free: who has the seat is silent for so long that another
	// machine would get it. Quiet: what the one before was promised has run out.
	Free  bool `json:"free,omitempty"`
	Quiet bool `json:"quiet,omitempty"`
}

func (s *seat) is(o seat) bool { return s.Machine == o.Machine && s.Turn == o.Turn }

// next is the seat once machine has it.
func (s *seat) next(machine string) seat {
	n := seat{Machine: machine, Turn: s.Turn + 1, Former: slices.Clone(s.Former), Open: machine == ""}
	if s.Machine != "" {
		n.Former = append(n.Former, s.Machine)
	}
	n.Former = n.Former[max(0, len(n.Former)-keepFormer):]
	return n
}

// seats are those of the other voters. change is held while one changes hands, disk
// included; mu is a leaf, held for moments.
type seats struct {
	change sync.Mutex

	mu     sync.Mutex
	by     map[string]seat
	moving string                   // whose seat changes hands: no machine is greeted as this node
	heard  map[string]time.Duration // on our clock: who has the seat, last
	quiet  map[string]time.Duration // on our clock: from when on nothing promised to the one before stands
}

// newMachine makes an identity; it begins with the time, for people.
func newMachine() string {
	return time.Now().UTC().Format("20060102T150405Z") + "-" + rand.Text()[:16]
}

// Machine is the identity of this node's ledger directory.
func (l *Ledger) Machine() string { return l.id().Machine }

func (l *Ledger) loadSeats() error {
	b, err := l.store.Get([]byte(keySeats))
	if err != nil {
		return err
	}
	l.seat.by, l.seat.heard, l.seat.quiet = map[string]seat{}, map[string]time.Duration{}, map[string]time.Duration{}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &l.seat.by); err != nil {
			return fmt.Errorf("seats of the ledger in %s: %w", l.cfg.Dir, err)
		}
	}
	now := l.clock()
	for node := range l.seat.by { // it may have been heard just before this voter restarted
		l.seat.heard[node] = now
		l.seat.quiet[node] = now + l.outlast()
	}
	return nil
}

// outlast is how long after its last word nothing that a holder was promised stands.
func (l *Ledger) outlast() time.Duration { return l.cfg.Timing.Lease + l.cfg.Timing.Margin }

// tellSeats is what a greeting says of the seats.
func (l *Ledger) tellSeats() map[string]seat {
	young := !l.voter.outlasted()
	now := l.clock()
	l.seat.mu.Lock()
	defer l.seat.mu.Unlock()
	out := maps.Clone(l.seat.by)
	for node, s := range out {
		s.Free = !young && now >= l.seat.heard[node]+l.outlast()
		s.Quiet = now >= l.seat.quiet[node]
		out[node] = s
	}
	return out
}

// worthTelling leaves out what a greeting has no room for: of those that are no peers
// any more. Each witness that ever came has left a seat.
func (l *Ledger) worthTelling(seats map[string]seat) map[string]seat {
	for _, node := range slices.Sorted(maps.Keys(seats)) {
		if len(seats) <= maxSeats {
			break
		}
		if l.peer(node) == nil {
			delete(seats, node)
		}
	}
	return seats
}

// heardSeat notes that who has a node's seat was heard.
func (l *Ledger) heardSeat(node string) {
	now := l.clock()
	l.seat.mu.Lock()
	defer l.seat.mu.Unlock()
	l.seat.heard[node] = now
}

// newcomer tells whether who greets so remembers nothing of this ledger.
func (h *hello) newcomer() bool {
	return h.Blank || h.Joining || h.Arbitration != ArbitrationWitness.String() && h.LastIndex <= 1 // the entry that all begin with
}

// seated judges by the seats who greets, before anything else is made of the
// greeting, and may give it the seat.
func (l *Ledger) seated(you *hello) error {
	have, take, err := l.judgeSeat(you)
	if err == nil && take {
		err = l.give(you.Node, "", func() (seat, bool) {
			now := l.seat.by[you.Node]
			return have.next(you.Machine), now.is(have)
		})
		if err == nil {
			err = l.Stranger(you.Node, you.Machine) // another one was faster
		}
	}
	if err == nil && !l.foreign(you.Node) {
		err = l.heedSeats(you)
	}
	if err == nil {
		l.heardSeat(you.Node)
	}
	return err
}

// judgeSeat reports whether who greets is to be given the seat as it is now; the error
// says why it does not get it. An agent of a release before tells no identity: it is
// taken as it is, unless another machine answers, or the node was said to be replaced.
func (l *Ledger) judgeSeat(you *hello) (have seat, take bool, err error) {
	free := l.tellSeats()[you.Node].Free
	l.seat.mu.Lock()
	defer l.seat.mu.Unlock()
	have, known := l.seat.by[you.Node]
	no := &SeatError{Node: you.Node, Came: you.Machine, Has: have.Machine, At: l.cfg.Self}
	switch {
	case l.seat.moving == you.Node:
		no.Why = "it is just being given to another machine"
	case known && have.Machine == you.Machine && (have.Machine != "" || have.Open), !known && you.Machine == "":
		return have, false, nil
	case !known:
		return have, true, nil
	case slices.Contains(have.Former, you.Machine):
		no.Replaced = true
	case have.Open:
		return have, true, nil
	case !you.newcomer() && (you.Machine != "" || have.Machine == ""):
		no.Replaced = true
	case !free:
		no.Why = "that one was heard just now, or this voter has just started; if both run, stop one"
	case !you.Claims && you.Machine != "":
		no.Why = "it has not met every other voter yet, or not all find the old one silent"
	default:
		return have, true, nil
	}
	return have, false, no
}

// give has a seat change hands. by is asked for the seat as it is to be, with mu held,
// and whether it is to change at all. The old machine is refused from the beginning;
// before the new one is told of it, it is on disk, and every stream of the old one is
// closed: what that had acknowledged until then is in the log that a greeting tells.
func (l *Ledger) give(node, because string, by func() (seat, bool)) error {
	s := &l.seat
	s.change.Lock()
	defer s.change.Unlock()
	s.mu.Lock()
	was, known := s.by[node]
	now, changes := by()
	if !changes {
		s.mu.Unlock()
		return nil
	}
	vacant := now.Machine == "" && !now.Open
	other := known && was.Machine != now.Machine || vacant
	if other {
		s.moving = node
	}
	next := maps.Clone(s.by)
	next[node] = now
	quiet := s.heard[node] + l.outlast()
	if !known && because != "" && !l.isBlank() {
		quiet = l.clock() + l.outlast() // who sat there before told no identity
	}
	s.mu.Unlock()
	err := l.saveSeats(next)
	if err == nil && other {
		l.cut(node)
	}
	s.mu.Lock()
	s.moving = ""
	if err == nil {
		s.by = next
	}
	if err == nil && (other || !known && because != "") {
		s.quiet[node] = quiet
	}
	s.mu.Unlock()
	if err != nil {
		l.diskFailed(err)
		return err
	}
	if other {
		l.tellSeat(node, was.Machine, now.Machine, because)
	}
	return nil
}

func (l *Ledger) tellSeat(node, was, now, because string) {
	text := fmt.Sprintf("the machine %s is taken for it, no more that %s", nameMachine(now), nameMachine(was))
	if now == "" {
		text = fmt.Sprintf("the machine %s is refused from now on", nameMachine(was))
	}
	if because != "" {
		text += ": " + because
	}
	l.log.Warn("another machine is taken for a node", zap.String("peer", node), zap.String("was", was), zap.String("now", now), zap.String("because", because))
	l.event(Event{Kind: EventReplaced, Node: node, Because: text})
}

func (l *Ledger) saveSeats(by map[string]seat) error {
	b, err := json.Marshal(by)
	if err != nil {
		return fmt.Errorf("seats of the ledger: %w", err)
	}
	return l.store.Set([]byte(keySeats), b)
}

// heedSeats takes over what a voter knows better: a seat that has changed hands since,
// and that this node's own is another machine's.
func (l *Ledger) heedSeats(you *hello) error {
	for node, theirs := range you.Seats {
		if node == l.cfg.Self || l.peer(node) == nil {
			continue
		}
		theirs.Free, theirs.Quiet = false, false
		if err := l.give(node, you.Node+" says so", func() (seat, bool) { return theirs, theirs.Turn > l.seat.by[node].Turn }); err != nil {
			return err
		}
	}
	mine, told := you.Seats[l.cfg.Self]
	if !told || mine.Machine == l.Machine() || mine.Open || l.mayClaim() {
		l.noteReplaced(you.Node, nil)
		return nil
	}
	err := &SeatError{Node: l.cfg.Self, Came: l.Machine(), Has: mine.Machine, At: you.Node, Replaced: true}
	l.noteReplaced(you.Node, err)
	return err
}

// mayClaim tells whether this node remembers nothing, so that it may take its seat over.
func (l *Ledger) mayClaim() bool {
	id := l.id()
	if !id.Blank && !id.Joining && l.pair() {
		last, _ := l.lastLog()
		return last <= 1
	}
	return id.Blank || id.Joining
}

// claims tells whether this node asks for its seat: where all others have been met and
// would give it, so that none gives it in vain. To the group of one that was forced to go
// on alone nobody else's word counts: it has no other voter yet.
func (l *Ledger) claims() bool {
	if !l.mayClaim() {
		return false
	}
	if l.id().Joining || !l.isBlank() && l.pair() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, node := range l.toMeet() {
		you, met := l.met[node]
		s, told := you.Seats[l.cfg.Self]
		if !met && !l.vouched || told && s.Machine != l.ident.Machine && !s.Free {
			return false
		}
	}
	return true
}

// gave tells whether a voter that greeted so has no other machine for this node, nor
// has promised anything to one.
func (l *Ledger) gave(you *hello) bool {
	s, told := you.Seats[l.cfg.Self]
	return !told || s.Machine == l.ident.Machine && s.Quiet
}

// noteReplaced remembers who takes another machine for this node.
func (l *Ledger) noteReplaced(by string, err *SeatError) {
	l.mu.Lock()
	_, was := l.replaced[by]
	if err == nil {
		delete(l.replaced, by)
	} else {
		l.replaced[by] = err
	}
	l.mu.Unlock()
	if err != nil && !was {
		l.log.Error("this machine was replaced", zap.String("peer", by), zap.Error(err))
		l.event(Event{Kind: EventReplaced, Node: l.cfg.Self, Because: "refused by " + by, Err: err})
	}
}

// machineOf is the machine that is taken for another voter.
func (l *Ledger) machineOf(node string) string {
	l.seat.mu.Lock()
	defer l.seat.mu.Unlock()
	return l.seat.by[node].Machine
}

// wasReplaced is the word of a voter that takes another machine for this node, nil
// where none does.
func (l *Ledger) wasReplaced() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range l.replaced {
		return err
	}
	return nil
}

// Stranger judges a machine that calls itself node: nil when it is the one that this
// voter takes for it, or when it knows of none. An identity that is not told is of a
// release before.
func (l *Ledger) Stranger(node, machine string) error {
	l.seat.mu.Lock()
	defer l.seat.mu.Unlock()
	have, known := l.seat.by[node]
	if machine == "" || !known || have.Machine == machine || have.Open {
		return nil
	}
	return &SeatError{Node: node, Came: machine, Has: have.Machine, At: l.cfg.Self, Replaced: slices.Contains(have.Former, machine), Why: "its ledger has not asked for it"}
}

// cut closes every stream to and from a node.
func (l *Ledger) cut(node string) {
	l.mu.Lock()
	g := l.grp
	for c, peer := range l.conns {
		if peer == node {
			c.Close() //nolint:errcheck // its server ends
		}
	}
	l.mu.Unlock()
	l.dialed.cut(node)
	if g != nil {
		g.layer.cut(node)
	}
	if p := l.peer(node); p != nil {
		p.reset()
	}
}
