package ledger

import (
	"context"
	"maps"
	"slices"

	"github.com/hashicorp/raft"
)

// Who is who. The data nodes are those of the configuration, for good. A witness may
// come and go while the group runs: which one is there says raft's configuration, the
// newest in the log, whether committed or not; which one is to be there says the
// operator's (arrange.go).

// ofPair is the arbitration of a configuration as long as there is no witness.
func (c *Config) ofPair() Arbitration {
	if c.Arbitration == ArbitrationFencing {
		return ArbitrationFencing
	}
	return ArbitrationManual
}

// data are the configured nodes with data, in the order of the configuration.
func (c *Config) data() []string {
	var out []string
	for _, v := range c.Voters {
		if !v.Witness {
			out = append(out, v.Node)
		}
	}
	return out
}

// witness is the configured witness, "" where there is none.
func (c *Config) witness() string {
	for _, v := range c.Voters {
		if v.Witness {
			return v.Node
		}
	}
	return ""
}

// isWitness tells whether a node has no data: it is none of those that do.
func (l *Ledger) isWitness(node string) bool { return !slices.Contains(l.cfg.data(), node) }

// dataPeer is the other data node of two.
func (l *Ledger) dataPeer() string {
	for _, node := range l.cfg.data() {
		if node != l.cfg.Self {
			return node
		}
	}
	return ""
}

// servers are the members of the group, with and without a vote, by the newest
// configuration in the log; none where the log has none.
func (l *Ledger) servers() []raft.Server {
	if g := l.group(); g != nil {
		return configuration(g.raft)
	}
	c, err := l.storedServers()
	if err != nil {
		return nil // raft, which reads the same log, reports it
	}
	return c
}

// third is the member of the group that is no data node, if there is one.
func (l *Ledger) third(servers []raft.Server) (s raft.Server, found bool) {
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return l.isWitness(string(s.ID)) })
	if i < 0 {
		return s, false
	}
	return servers[i], true
}

// foreign tells of a witness that has no part in this node's group, yet or any more: what
// it says of others may be old, and there is nothing to be split from.
func (l *Ledger) foreign(node string) bool {
	if id := l.id(); !l.isWitness(node) || id.Blank || id.Joining || id.Forked {
		return false
	}
	s, found := l.third(l.servers())
	return !found || string(s.ID) != node
}

// pair tells whether the group is one of two voters, which one may leave: there is no
// third member, with a vote or without one yet.
func (l *Ledger) pair() bool { return !l.isBlank() && l.pairOf(l.servers()) }

func (l *Ledger) pairOf(servers []raft.Server) bool {
	if l.isWitness(l.cfg.Self) || l.id().Forked {
		return false
	}
	if len(servers) == 0 {
		return l.id().Joining // it lost a group of two, or is new to one
	}
	return len(servers) <= 2
}

// Arbitration is the one in force, by the ledger: what the configuration says may not
// be in force yet, or no more.
func (l *Ledger) Arbitration() Arbitration {
	if !l.pair() {
		return ArbitrationWitness
	}
	return l.ofPair()
}

// ofPair is the arbitration while there is no witness.
func (l *Ledger) ofPair() Arbitration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alike
}

// wanted is the witness by the operator's configuration, "" for none.
func (l *Ledger) wanted() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.want
}

// peer is another node as this one reaches it, nil for who is none.
func (l *Ledger) peer(node string) *peer { return l.others()[node] }

// others are the peers; the map is never changed.
func (l *Ledger) others() map[string]*peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers
}

// meetPeers has the peers be the other data nodes, the witness that is wanted, and the
// third member as it is now.
func (l *Ledger) meetPeers() {
	l.meeting.Lock()
	defer l.meeting.Unlock()
	want := map[string]bool{l.wanted(): true}
	for _, node := range l.cfg.data() {
		want[node] = true
	}
	if s, found := l.third(l.servers()); found {
		want[string(s.ID)] = true
	}
	delete(want, "")
	delete(want, l.cfg.Self)
	next := maps.Clone(l.others())
	for node, p := range next {
		if !want[node] {
			p.cancel()
			p.close()
			delete(next, node)
		}
	}
	var begun []*peer
	for node := range want {
		if next[node] == nil {
			next[node] = newPeer(l, node)
			begun = append(begun, next[node])
		}
	}
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.peers = next
		for _, p := range begun {
			l.wg.Go(p.renew)
		}
	}
	l.mu.Unlock()
}

// newPeer makes a peer that ends with the ledger, or when it is forgotten.
func newPeer(l *Ledger, node string) *peer {
	p := &peer{l: l, node: node, wake: make(chan struct{}, 1), back: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(l.ctx)
	return p
}
