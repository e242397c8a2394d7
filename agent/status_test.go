package main

import (
	"slices"
	"testing"

	"hapair/failover"
	"hapair/failover/ledger"
)

// What a witness says of a resource is what it can know.
func TestTestimonyOfAWitness(t *testing.T) {
	read := ledger.Status{Applied: 9, Promising: true}
	for _, c := range []struct {
		rec    ledger.Record
		ls     ledger.Status
		lapsed bool
		want   string
	}{
		{want: "the ledger has not been read since this agent began"},
		{ls: ledger.Status{Applied: 9}, want: "this voter began lately: it promises no lease before those it may have forgotten have run out"},
		{ls: read, lapsed: true, want: "nobody has declared which copy is good"},
		{ls: read, lapsed: true, rec: ledger.Record{Token: 3}, want: "nobody is Primary by the ledger"},
		{ls: read, rec: ledger.Record{Token: 3, Primary: "alpha"}, want: "alpha is Primary and renews its lease here"},
		{ls: read, lapsed: true, rec: ledger.Record{Token: 3, Primary: "alpha"}, want: "alpha is Primary by the ledger, but does not renew its lease here"},
	} {
		if got := testimony(c.rec, &c.ls, c.lapsed); got != c.want {
			t.Errorf("%+v, lapsed %t: %q, want %q", c.rec, c.lapsed, got, c.want)
		}
	}
}

// A mark of one resource, as that an operator moved it, is no maintenance.
func TestMarksOfTheCluster(t *testing.T) {
	ls := &ledger.Status{Maintenance: map[string]string{failover.MarkStay("pg"): "", failover.MarkDown("web"): "", failover.MarkLeft("web", "beta"): ""}}
	if on, nodes := marked(ls); on || len(nodes) > 0 {
		t.Error(on, nodes)
	}
	ls.Maintenance[failover.MarkMaintenance], ls.Maintenance[failover.MarkStandby("beta")], ls.Maintenance[failover.MarkStandby("alpha")] = "", "", ""
	if on, nodes := marked(ls); !on || !slices.Equal(nodes, []string{"alpha", "beta"}) {
		t.Error(on, nodes)
	}
}
