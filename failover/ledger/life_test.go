package ledger

import (
	"fmt"
	"testing"
)

// A greeting that is read late does not bring back a life that is over: what has come
// since would be taken for the next one, which nobody has met.
func TestLifeThatIsOver(t *testing.T) {
	l := &Ledger{cfg: Config{Self: "alpha", Voters: []Voter{{Node: "alpha"}, {Node: "beta"}}}}
	if _, greeted := l.PeerLife(); greeted {
		t.Error("nobody has greeted")
	}
	for i, step := range []struct{ told, want string }{{"", ""}, {"1", "1"}, {"1", "1"}, {"2", "2"}, {"1", "2"}, {"", ""}, {"2", ""}, {"3", "3"}, {"2", "3"}} {
		l.toldLife("beta", step.told)
		if life, greeted := l.PeerLife(); life != step.want || !greeted {
			t.Errorf("step %d: %q, %v; want %q", i, life, greeted, step.want)
		}
	}
	for i := range 3 * livesMax {
		l.toldLife("beta", fmt.Sprint("life ", i))
	}
	if len(l.fence.lives) != livesMax {
		t.Errorf("%d lives are kept", len(l.fence.lives))
	}
}
