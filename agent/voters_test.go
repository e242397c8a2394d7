package main

import (
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/agent/config"
)

// What config apply answers: what changed, and what it waits for.
func TestAppliedText(t *testing.T) {
	for _, c := range []struct {
		was, now           []string
		before, after, why string
		want               string
	}{
		{nil, nil, "manual", "manual", "", "/etc/hapair/hapair.yaml knows no other addresses, and no other witness, than are in use: nothing to apply"},
		{[]string{"beta lan 1"}, []string{"beta lan 2"}, "manual", "manual", "", "addresses on alpha: were beta lan 1, now beta lan 2"},
		{nil, nil, "manual", "witness (gamma)", "", "arbitration: was manual, now witness (gamma)"},
		{nil, nil, "manual", "manual", "gamma is not reached", "arbitration is manual, and changes when this is settled: gamma is not reached"},
		{[]string{"gamma lan 1"}, []string{"gamma lan 2"}, "witness (delta)", "witness (gamma)", "",
			"addresses on alpha: were gamma lan 1, now gamma lan 2; arbitration: was witness (delta), now witness (gamma)"},
	} {
		if got := appliedText("alpha", "/etc/hapair/hapair.yaml", c.was, c.now, c.before, c.after, c.why); got != c.want {
			t.Errorf("%q, wanted %q", got, c.want)
		}
	}
}

// From a witness to fencing there is no way while the agent runs: it has no devices.
func TestFencingIsNotApplied(t *testing.T) {
	witness := &config.Config{Witness: &config.Witness{Name: "gamma"}, Arbitration: config.ArbitrateWitness}
	fencing := &config.Config{Arbitration: config.ArbitrateFencing}
	if p := notFencing(fencing, witness); p == nil || p.Code != apiv1.CodeRefused || !strings.Contains(p.Hint, "arbitration: manual") {
		t.Error(p)
	}
	for _, c := range [][2]*config.Config{{witness, fencing}, {fencing, fencing}, {witness, witness}} {
		if p := notFencing(c[0], c[1]); p != nil {
			t.Error(p)
		}
	}
}

// A witness that comes is no address that has changed.
func TestNewMemberHasNotMoved(t *testing.T) {
	old, err := config.Parse("hapair.yaml", []byte("nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}\ndisk: /dev/vdb\n"))
	if err != nil {
		t.Fatal(err)
	}
	next, err := config.Parse("hapair.yaml", []byte("nodes: {alpha: 10.99.0.1, beta: 10.99.0.3}\nwitness: {name: gamma, address: 10.99.0.4}\ndisk: /dev/vdb\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := addresses(old)
	b, _ := addresses(next)
	was, now := moves(a, b)
	if len(was) != 1 || len(now) != 1 || !strings.HasPrefix(now[0], "beta") {
		t.Errorf("were %q, now %q", was, now)
	}
}
