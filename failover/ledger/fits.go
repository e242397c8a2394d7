package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// ErrVoters says that the ledger was begun with other voters than are configured.
var ErrVoters = errors.New("the ledger has other voters than the configuration")

// fits wants the group in the store to be of the configured data nodes, and of one
// witness at most. Which one, or none, is the ledger's own word: a configuration that
// says otherwise is not in force (arrange.go). Of three one may have been forced to go
// on: until both others are back the group has fewer.
func (l *Ledger) fits() error {
	servers, err := l.storedServers()
	if err != nil || len(servers) == 0 { // a node that is joining has none
		return err
	}
	if err := l.recallFork(servers); err != nil {
		return err
	}
	data := l.cfg.data()
	var have, foreign []string
	for _, s := range servers {
		have = append(have, string(s.ID))
		if !slices.Contains(data, string(s.ID)) {
			foreign = append(foreign, string(s.ID))
		}
	}
	slices.Sort(have)
	plain := l.cfg.Arbitration == ArbitrationWitness && l.cfg.witness() == "" // three of them have data
	witness := len(foreign) == 1 && (foreign[0] == l.cfg.witness() || len(have) == 3 && len(data) == 2)
	if len(foreign) > 0 && !witness || plain && !l.id().Forked && len(have) < len(data) {
		want := slices.Clone(data)
		if w := l.cfg.witness(); w != "" {
			want = append(want, w)
		}
		slices.Sort(want)
		return fmt.Errorf("%w: %s in %s; %s configured, arbitration %v. Undo the change of the configuration; "+
			"a data node keeps its name (operations.md, \"Replace a machine\")",
			ErrVoters, strings.Join(have, ", "), l.cfg.Dir, strings.Join(want, ", "), l.cfg.Arbitration)
	}
	if id := l.id(); id.Forked && len(votersOf(servers)) == 3 {
		id.Forked = false
		return l.saveIdentity(id)
	}
	return nil
}

// recallFork has the identity say that this node was forced out of a group of three,
// where the power went between that step (recover) and the note of it.
func (l *Ledger) recallFork(servers []raft.Server) error {
	id := l.id()
	if id.Forked || l.cfg.Arbitration != ArbitrationWitness || len(servers) != 1 || string(servers[0].ID) != l.cfg.Self {
		return nil
	}
	s, err := l.replayAll()
	if err != nil || len(s.Lineage) == 0 {
		return nil // what is broken shows when raft starts
	}
	if by := s.Lineage[len(s.Lineage)-1]; by.Node != l.cfg.Self || by.Term == 0 {
		return nil
	}
	id.Forked = true
	return l.saveIdentity(id)
}

// storedServers are the members of the group by all that is in the store.
func (l *Ledger) storedServers() ([]raft.Server, error) {
	servers, _, err := l.storedMembership()
	return servers, err
}

// storedMembership is the newest configuration in the store, and the entry it is in.
func (l *Ledger) storedMembership() (servers []raft.Server, at uint64, err error) {
	next := uint64(1)
	metas, err := l.snaps.List()
	if err != nil {
		return nil, 0, err
	}
	if len(metas) > 0 {
		servers, at, next = metas[0].Configuration.Servers, metas[0].ConfigurationIndex, metas[0].Index+1
	}
	err = l.entriesFrom(next, func(e *raft.Log) {
		if e.Type == raft.LogConfiguration {
			servers, at = raft.DecodeConfiguration(e.Data).Servers, e.Index
		}
	})
	return servers, at, err
}
