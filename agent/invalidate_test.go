package main

import (
	"testing"

	"hapair/agent/apiv1"
	"hapair/failover/ledger"
	"hapair/mirror"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// inLine is a pair in line, seen from the Secondary.
func inLine() copies {
	c := copies{resource: "pg", self: "beta", peer: "alpha", record: ledger.Record{Token: 7, Tenure: 5, Primary: "alpha", InSync: []string{"alpha", "beta"}}}
	c.mirror = mirror.View{State: state.Connected, View: engine.View{Role: state.Secondary, Replication: state.Established,
		Volumes: []engine.VolumeView{{Number: 0, Disk: state.UpToDate, PeerDisk: state.UpToDate}, {Number: 1, Disk: state.UpToDate, PeerDisk: state.UpToDate}}}}
	return c
}

// The only good copy is never given up, and the refusal says why.
func TestWhoMayGiveUpItsCopy(t *testing.T) {
	volume := func(n int) *int { return &n }
	for name, c := range map[string]struct {
		change     func(*copies)
		volume     *int
		code, text string
	}{
		"in line":    {},
		"one volume": {volume: volume(1)},
		"no such volume": {volume: volume(2), code: apiv1.CodeNotFound,
			text: "pg has no volume 2; it has [0 1]"},
		"Primary": {change: func(c *copies) { c.mirror.Role = state.Primary }, code: apiv1.CodeRefused,
			text: "beta is Primary: its copy of pg is in use"},
		"Primary in a split brain": {change: func(c *copies) { c.mirror.Role, c.mirror.SplitBrain = state.Primary, true }, code: apiv1.CodeRefused,
			text: "beta is Primary: its copy of pg is in use"},
		"only this one is in sync": {change: func(c *copies) { c.record.InSync = []string{"beta"} }, code: apiv1.CodeNotUpToDate,
			text: "the copy of beta is the only good one: the ledger does not call that of alpha current"},
		"the peer is away": {change: func(c *copies) { c.mirror.State = state.Connecting }, code: apiv1.CodePeerAway,
			text: "alpha is not connected (Connecting): whether its copy is good is not known, and that of beta may be the only one"},
		"the peer's disk": {change: func(c *copies) { c.mirror.Volumes[1].PeerDisk = state.Inconsistent }, code: apiv1.CodeNotUpToDate,
			text: "the copy of beta is the only good one: volume 1 of alpha is Inconsistent"},
		"this one is not in sync": {change: func(c *copies) { c.record.InSync = []string{"alpha"} }},
		"split brain of the data": {change: func(c *copies) { c.mirror.State, c.mirror.SplitBrain = state.StandAlone, true }},
		"split brain of the ledgers": {change: func(c *copies) {
			c.mirror.State, c.ledgerSplit, c.record.InSync = state.StandAlone, true, []string{"beta"}
		}},
		"split brain, only this one is in sync": {change: func(c *copies) {
			c.mirror.State, c.mirror.SplitBrain, c.record.InSync = state.StandAlone, true, []string{"beta"}
		},
			code: apiv1.CodeNotUpToDate, text: "the copy of beta is the only good one: the ledger does not call that of alpha current"},
	} {
		x := inLine()
		if c.change != nil {
			c.change(&x)
		}
		judged(t, name, x.mayGiveUp(c.volume), c.code, c.text)
	}
}

// A copy that is not good replaces no other.
func TestWhoseCopyMayReplaceThePeers(t *testing.T) {
	for name, c := range map[string]struct {
		change     func(*copies)
		code, text string
	}{
		"in line": {},
		"Primary": {change: func(c *copies) { c.mirror.Role, c.record.InSync = state.Primary, []string{"beta"} }},
		"half copied": {change: func(c *copies) { c.mirror.Volumes[1].Disk = state.Inconsistent }, code: apiv1.CodeNotUpToDate,
			text: "volume 1 of beta is Inconsistent: nothing good would be left if alpha gave its copy up"},
		"not in sync": {change: func(c *copies) { c.record.InSync = []string{"alpha"} }, code: apiv1.CodeNotUpToDate,
			text: "the ledger does not call the copy of beta current: that of alpha must not be given up for it"},
	} {
		x := inLine()
		if c.change != nil {
			c.change(&x)
		}
		judged(t, name, x.mayReplace(nil), c.code, c.text)
	}
}

func judged(t *testing.T, name string, p *apiv1.Problem, code, text string) {
	t.Helper()
	switch {
	case p == nil && code != "":
		t.Errorf("%s: is done, want %q", name, text)
	case p != nil && (p.Code != code || p.Text != text || p.Hint == ""):
		t.Errorf("%s: %s, %q, hint %q, want %s, %q", name, p.Code, p.Text, p.Hint, code, text)
	}
}
