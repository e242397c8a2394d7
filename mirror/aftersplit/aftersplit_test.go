package aftersplit

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var nodes = []string{"alpha", "beta"}

func side(node string, changes int64, marks string) Side {
	return Side{Node: node, Changes: changes, Primary: strings.Contains(marks, "P"), Elder: strings.Contains(marks, "E")}
}

// What DRBD's manual says of each policy, and the two refusals that are ours: equal
// numbers of changes, and changes that nobody knows, decide nothing.
func TestDecide(t *testing.T) {
	for _, c := range []struct {
		policies string // as in the file, in their order
		alpha    Side
		beta     Side
		victim   string
	}{
		{"disconnect disconnect disconnect", side("alpha", 0, ""), side("beta", 9, ""), ""},
		{"discard-younger-primary disconnect disconnect", side("alpha", 1, "E"), side("beta", 9, ""), "beta"},
		{"discard-older-primary disconnect disconnect", side("alpha", 9, "E"), side("beta", 1, ""), "alpha"},
		{"discard-younger-primary disconnect disconnect", side("alpha", 1, ""), side("beta", 9, "E"), "alpha"},
		{"discard-younger-primary disconnect disconnect", side("alpha", 3, "E"), side("beta", 9, "E"), "alpha"},
		{"discard-older-primary disconnect disconnect", side("alpha", Unknown, ""), side("beta", 9, ""), ""},
		{"discard-zero-changes disconnect disconnect", side("alpha", 0, ""), side("beta", 9, ""), "alpha"},
		{"discard-zero-changes disconnect disconnect", side("alpha", 3, ""), side("beta", 0, ""), "beta"},
		{"discard-zero-changes disconnect disconnect", side("alpha", 0, ""), side("beta", 0, ""), "beta"},
		{"discard-zero-changes disconnect disconnect", side("alpha", 1, ""), side("beta", 2, ""), ""},
		{"discard-zero-changes disconnect disconnect", side("alpha", 0, ""), side("beta", Unknown, ""), ""},
		{"discard-least-changes disconnect disconnect", side("alpha", 3, ""), side("beta", 2, ""), "beta"},
		{"discard-least-changes disconnect disconnect", side("alpha", 3, ""), side("beta", 3, ""), ""},
		{"discard-least-changes disconnect disconnect", side("alpha", 3, ""), side("beta", 2, "P"), ""}, // that one is after-sb-1pri's
		{"discard-node-beta disconnect disconnect", side("alpha", 3, ""), side("beta", 9, ""), "beta"},
		{"disconnect discard-secondary disconnect", side("alpha", 9, ""), side("beta", 0, "P"), "alpha"},
		{"disconnect consensus disconnect", side("alpha", 9, ""), side("beta", 0, "P"), ""},
		{"discard-least-changes consensus disconnect", side("alpha", 1, ""), side("beta", 9, "P"), "alpha"},
		{"discard-least-changes consensus disconnect", side("alpha", 9, ""), side("beta", 1, "P"), ""},
		{"discard-least-changes violently-as0p disconnect", side("alpha", 9, ""), side("beta", 1, "P"), "beta"},
		{"discard-older-primary call-pri-lost-after-sb disconnect", side("alpha", 9, "PE"), side("beta", 1, ""), "alpha"},
		{"discard-zero-changes disconnect call-pri-lost-after-sb", side("alpha", 9, "P"), side("beta", 1, "P"), ""},
		{"discard-younger-primary disconnect call-pri-lost-after-sb", side("alpha", 9, "PE"), side("beta", 1, "P"), "beta"},
		{"discard-node-alpha disconnect violently-as0p", side("alpha", 9, "P"), side("beta", 1, "P"), "alpha"},
	} {
		p := Policies(strings.Fields(c.policies))
		if err := p.Check(nodes); err != nil {
			t.Fatal(err)
		}
		if o := Decide(p, c.alpha, c.beta); o.Victim != c.victim || o.Why == "" {
			t.Errorf("%v: %+v against %+v: %+v, want %q", p, c.alpha, c.beta, o, c.victim)
		}
	}
}

func TestCheck(t *testing.T) {
	if err := Default.Check(nil); err != nil || Default.Deciding() {
		t.Fatal(err)
	}
	for _, p := range []Policies{{}, {"discard-node-gamma", Disconnect, Disconnect}, {Disconnect, "discard-zero-changes", Disconnect},
		{Disconnect, Disconnect, "discard-secondary"}, {Disconnect, Disconnect, "consensus"}, {"discard-node-", Disconnect, Disconnect}} {
		if err := p.Check(nodes); err == nil || !strings.Contains(err.Error(), "want one of disconnect") {
			t.Errorf("%v: %v", p, err)
		}
	}
}

// Each node asks by itself, and must hear the same.
func TestDecideIsSymmetric(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(node string) Side {
			return Side{node, rapid.Bool().Draw(t, "primary"), rapid.Bool().Draw(t, "elder"), rapid.Int64Range(-1, 3).Draw(t, "changes")}
		}
		p := Policies{
			rapid.SampledFrom([]string{Disconnect, YoungerPri, OlderPri, ZeroChanges, LeastChanges, nodePrefix + "beta"}).Draw(t, "0pri"),
			rapid.SampledFrom([]string{Disconnect, Consensus, ViolentlyAs0p, Secondary, CallPriLost}).Draw(t, "1pri"),
			rapid.SampledFrom([]string{Disconnect, ViolentlyAs0p, CallPriLost}).Draw(t, "2pri"),
		}
		a, b := draw("alpha"), draw("beta")
		here, there := Decide(p, a, b), Decide(p, b, a)
		if here != there {
			t.Fatalf("%+v here, %+v there", here, there)
		}
		if here.Victim != "" && here.Victim != "alpha" && here.Victim != "beta" {
			t.Fatalf("%+v", here)
		}
	})
}
