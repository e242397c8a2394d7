package ledger

import (
	"slices"
	"time"

	"hapair/failover/ledger/record"
)

// VoterStatus is how this node sees one voter.
type VoterStatus struct {
	Node      string
	Witness   bool
	Voting    bool // in the group as it is now
	Reachable bool
	Contact   time.Duration // since the sending of the last message it answered; -1: never
	Why       string        // it is not reachable
	Machine   string        // that is taken for it here; "" where none is known
}

// Status is what this node knows of the ledger.
type Status struct {
	State       string      // leader, follower, candidate, blank, joining, left, failed, replaced, split brain, restarting
	Leader      string      // "" when none is known
	Arbitration Arbitration // in force
	Wanted      string      // the witness by the configuration; "" for none
	Arranging   string      // why the voters are not those of the configuration yet; "" when they are
	Incarnation uint64
	Lineage     []record.Founder // who went alone, when, and why; newest last
	Voters      []VoterStatus
	Reachable   int  // voters in the group, this node included
	Of          int  // voters in the group
	Quorum      bool // Reachable is a majority
	Alone       bool // this node is the only voter of a group configured larger
	Joining     bool // this node is no voter again yet
	Promising   bool // this node's voter grants leases
	SplitBrain  string
	Unmet       []string // of a blank node: who is to be met before it takes part
	Refusing    []string // of a blank node: who has been met, and takes another machine for it yet
	Replaced    error    // another voter takes another machine for this node; nil: none does
	Applied     uint64
	Maintenance map[string]string
	Forced      []record.Forced
	Fences      []record.Fence
	Err         error // the disk's, if it failed
}

// Incarnation is what every handshake tells.
func (l *Ledger) Incarnation() uint64 { return l.view.inc() }

// Marked reports whether SetMaintenance noted subject, as far as applied here.
func (l *Ledger) Marked(subject string) bool { return l.view.marked(subject) }

// CaughtUp reports whether this node has applied all that was committed before it
// started. Until then what Record and Marked say may be of a snapshot, older than this
// node's own log.
func (l *Ledger) CaughtUp() bool { return l.voter.caughtUp() }

// CanChange reports whether the ledger can be changed, as far as known now: a
// leader is known and a majority of the voters answers.
func (l *Ledger) CanChange() bool {
	g := l.group()
	if g == nil {
		return false
	}
	_, id := g.raft.LeaderWithID()
	return id != "" && l.Answers()
}

// Answers reports whether a majority of the voters answers.
func (l *Ledger) Answers() bool {
	voters, _ := l.voters()
	reached := 0
	for _, node := range voters {
		if l.reaches(node) {
			reached++
		}
	}
	return len(voters) > 0 && reached > len(voters)/2
}

// Alone reports whether this node is the only voter of a group configured larger.
func (l *Ledger) Alone() bool {
	return l.isOnlyVoter() && len(l.cfg.data()) > 1
}

// SplitFrom names the node that went alone too, "" when there is none.
func (l *Ledger) SplitFrom() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.split
}

func (l *Ledger) reaches(node string) bool {
	if node == l.cfg.Self {
		return true
	}
	p := l.peer(node)
	return p != nil && p.answers()
}

// Status returns what this node knows now. It waits for nothing.
func (l *Ledger) Status() Status {
	s := Status{Arbitration: l.Arbitration(), Promising: l.voter.ready()}
	voting := map[string]bool{}
	if g := l.group(); g != nil {
		_, id := g.raft.LeaderWithID()
		s.Leader, s.Applied = string(id), g.raft.AppliedIndex()
		if names, ok := l.voters(); ok {
			for _, n := range names {
				voting[n] = true
			}
		}
		s.State = stateName(g.raft.State().String())
	} else {
		s.State = "restarting"
	}
	s.Unmet, s.Refusing = l.missing()
	for _, v := range l.known() { // a blank node has not joined the others yet
		voting[v.Node] = voting[v.Node] || len(s.Unmet)+len(s.Refusing) > 0
	}
	l.statusOfVoters(&s, voting)
	s.Quorum = s.Quorum && len(s.Unmet)+len(s.Refusing) == 0
	l.view.mu.Lock()
	s.Incarnation, s.Lineage, s.Maintenance = l.view.incarnation, l.view.lineage, l.view.marks
	s.Forced, s.Fences = l.view.forced, l.view.fences
	l.view.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	s.SplitBrain, s.Err, s.Joining = l.split, l.diskErr, l.ident.Joining
	s.Wanted, s.Arranging = l.want, l.arranging
	for _, err := range l.replaced {
		s.Replaced, s.Promising = err, false
	}
	switch {
	case l.left || l.closed:
		s.State = "left"
	case l.diskErr != nil:
		s.State = "failed"
	case s.Replaced != nil:
		s.State = "replaced"
	case l.split != "":
		s.State = "split brain"
	case l.ident.Blank:
		s.State = "blank"
	case l.ident.Joining:
		s.State = "joining"
	}
	return s
}

func stateName(raftState string) string {
	switch raftState {
	case "Leader":
		return "leader"
	case "Candidate":
		return "candidate"
	case "Follower":
		return "follower"
	}
	return "stopped"
}

// known are all that are voters, or are to be: this node's view.
func (l *Ledger) known() (all []Voter) {
	for _, node := range l.cfg.data() {
		all = append(all, Voter{Node: node})
	}
	witnesses := []string{l.wanted()}
	if s, found := l.third(l.servers()); found {
		witnesses = append(witnesses, string(s.ID))
	}
	slices.Sort(witnesses)
	for _, node := range slices.Compact(witnesses) {
		if node != "" {
			all = append(all, Voter{Node: node, Witness: true})
		}
	}
	return all
}

func (l *Ledger) statusOfVoters(s *Status, voting map[string]bool) {
	now := l.clock()
	for _, v := range l.known() {
		st := VoterStatus{Node: v.Node, Witness: v.Witness, Voting: voting[v.Node], Contact: -1}
		if p := l.peer(v.Node); v.Node == l.cfg.Self {
			st.Reachable, st.Contact, st.Machine = true, 0, l.Machine()
		} else if p != nil {
			p.mu.Lock()
			st.Machine = l.machineOf(v.Node)
			st.Reachable = p.reached
			if p.contact > 0 {
				st.Contact = now - p.contact
			}
			if p.why != nil {
				st.Why = p.why.Error()
			}
			p.mu.Unlock()
		}
		s.Voters = append(s.Voters, st)
		if st.Voting {
			s.Of++
			if st.Reachable {
				s.Reachable++
			}
		}
	}
	s.Quorum = s.Of > 0 && s.Reachable > s.Of/2
	s.Alone = s.Of == 1 && voting[l.cfg.Self] && len(l.cfg.data()) > 1
}
