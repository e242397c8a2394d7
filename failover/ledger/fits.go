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

// fits wants the group in the store to be of the configured voters. One that is not
// configured any more votes yet: with another node it might decide without this one,
// which by its configuration may go on alone. And a witness that is configured now
// would look as if it counted. Of three one may have been forced to go on: until both
// others are back the group has fewer.
func (l *Ledger) fits() error {
	have, err := l.storedVoters()
	if err != nil || len(have) == 0 { // a node that is joining has none
		return err
	}
	want := []string{}
	for _, v := range l.cfg.Voters {
		want = append(want, v.Node)
	}
	slices.Sort(want)
	foreign := slices.ContainsFunc(have, func(node string) bool { return !slices.Contains(want, node) })
	if foreign || !l.cfg.pair() && !l.id().Forked && len(have) < len(want) {
		return fmt.Errorf("%w: %s in %s; %s configured, arbitration %v. Undo the change of the configuration; "+
			"to have other voters, stop all nodes and begin a new ledger (operations.md, \"Another arbitration\")",
			ErrVoters, strings.Join(have, ", "), l.cfg.Dir, strings.Join(want, ", "), l.cfg.Arbitration)
	}
	if id := l.id(); id.Forked && len(have) == len(want) {
		id.Forked = false
		return l.saveIdentity(id)
	}
	return nil
}

// storedVoters are the voters by all that is in the store, sorted.
func (l *Ledger) storedVoters() ([]string, error) {
	var c raft.Configuration
	next := uint64(1)
	metas, err := l.snaps.List()
	if err != nil {
		return nil, err
	}
	if len(metas) > 0 {
		c, next = metas[0].Configuration, metas[0].Index+1
	}
	err = l.entriesFrom(next, func(e *raft.Log) {
		if e.Type == raft.LogConfiguration {
			c = raft.DecodeConfiguration(e.Data)
		}
	})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			names = append(names, string(s.ID))
		}
	}
	slices.Sort(names)
	return names, nil
}
