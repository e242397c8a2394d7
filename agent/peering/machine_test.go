package peering

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
)

var errOther = errors.New("alpha takes another machine for beta")

// A machine that another one was taken in place of is talked to about the ledger only,
// whoever dials, and what was open with it is closed; so it is with nobody who tells no
// identity.
func TestStrangers(t *testing.T) {
	var has, is atomic.Value
	has.Store("")
	is.Store("old")
	w := newWorld(t, PSK, func(node string, c *Config) {
		c.Machine = func() string { return map[string]string{"alpha": "a", "beta": is.Load().(string)}[node] }
		if node == "alpha" {
			c.Stranger = func(node, machine string) error {
				if have := has.Load().(string); have == "" || machine == "" || have == machine {
					return nil
				}
				return errOther
			}
		}
	})
	for _, n := range []*Net{w.alpha, w.beta} {
		n.Handle("mirror", echo)
		n.Handle("ledger", echo)
	}
	ctx := testContext(t)
	open, err := w.beta.Dial(ctx, "alpha", "", "mirror/pg/data")
	if err != nil || open.Machine != "a" {
		t.Fatalf("%+v, %v", open, err)
	}
	talk(t, open, []byte("in line?"))
	has.Store("new")
	w.alpha.CloseStrangers()
	if n, err := open.Read(make([]byte, 1)); n != 0 || err == nil || !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%d, %v", n, err)
	}
	var refused *RefusedError
	if _, err := w.beta.Dial(ctx, "alpha", "", "mirror/pg/data"); !errors.As(err, &refused) || refused.Code != Replaced || refused.Text != errOther.Error() {
		t.Errorf("the stranger dials: %v", err)
	}
	if _, err := w.alpha.Dial(ctx, "beta", "", "mirror/pg/data"); !errors.As(err, &refused) || refused.Code != Replaced || !refused.Dialed {
		t.Errorf("the stranger is dialed: %v", err)
	}
	for _, n := range []*Net{w.alpha, w.beta} {
		c, err := n.Dial(ctx, map[*Net]string{w.alpha: "beta", w.beta: "alpha"}[n], "", "ledger/call")
		if err != nil {
			t.Fatal(err)
		}
		talk(t, c, []byte("who has the name?"))
	}
	for _, machine := range []string{"", "new"} {
		is.Store(machine)
		c, err := w.alpha.Dial(ctx, "beta", "", "mirror/pg/data")
		if err != nil || c.Machine != machine {
			t.Fatalf("%q: %+v, %v", machine, c, err)
		}
		talk(t, c, []byte("in line?"))
	}
}
