package peering

import (
	"errors"
	"sync/atomic"
	"testing"
)

// Neither of two incarnations that were founded apart has to rejoin because of its
// number: what the two nodes have is told over their streams.
func TestApart(t *testing.T) {
	for _, theirs := range []uint64{4, 6} {
		apart := map[string]*atomic.Bool{"alpha": {}, "beta": {}}
		w := newWorld(t, PSK, func(node string, c *Config) { c.Apart = func(string) bool { return apart[node].Load() } })
		w.beta.Handle("mirror", echo)
		w.incarnation["beta"].Store(theirs)
		for _, knows := range []string{"", "alpha", "beta"} { // and both
			if knows != "" {
				apart["alpha"].Store(knows == "alpha")
				apart["beta"].Store(knows == "beta")
			}
			if _, err := w.alpha.Dial(testContext(t), "beta", "", "mirror/pg/data"); !errors.Is(err, ErrLeftBehind) && !errors.Is(err, ErrPeerBehind) {
				t.Errorf("%d: %q alone knows, and they talk: %v", theirs, knows, err)
			}
		}
		apart["alpha"].Store(true)
		c, err := w.alpha.Dial(testContext(t), "beta", "", "mirror/pg/data")
		if err != nil || c.Incarnation != theirs {
			t.Fatalf("%d: %+v, %v", theirs, c, err)
		}
		talk(t, c, []byte("and what have you?"))
	}
}
