package peering

import (
	"errors"
	"net"
	"testing"
)

// A shut path carries nothing, whoever dials, until it is opened again; the other
// one does not notice. With all shut there is no way, and no last resort.
func TestShut(t *testing.T) {
	w := newWorld(t, PSK, nil)
	w.beta.Handle("raft", echo)
	w.alpha.Handle("raft", echo)
	ctx := testContext(t)
	c, err := w.alpha.Dial(ctx, "beta", "crossover", "raft")
	if err != nil {
		t.Fatal(err)
	}
	w.alpha.Shut("beta", "crossover")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("a stream on the shut path: %v", err)
	}
	if _, err := w.alpha.Dial(ctx, "beta", "crossover", "raft"); !errors.Is(err, ErrPathDown) {
		t.Errorf("dialed over it: %v", err)
	}
	var refused *RefusedError
	if _, err := w.beta.Dial(ctx, "alpha", "crossover", "raft"); !errors.As(err, &refused) || refused.Code != Closing {
		t.Errorf("accepted over it: %v", err)
	}
	for _, n := range []*Net{w.alpha, w.beta} {
		to := map[*Net]string{w.alpha: "beta", w.beta: "alpha"}[n]
		if c, err = n.Dial(ctx, to, "", "raft"); err != nil || c.Path != "lan" {
			t.Fatalf("%+v, %v", c, err)
		}
		talk(t, c, []byte("the other path"))
	}
	w.alpha.Shut("beta", "lan")
	if _, err := w.alpha.Dial(ctx, "beta", "", "raft"); !errors.Is(err, ErrPathDown) {
		t.Errorf("with all shut: %v", err)
	}
	w.alpha.Reopen("beta", "lan")
	w.alpha.Reopen("beta", "crossover")
	if c, err = w.alpha.Dial(ctx, "beta", "", "raft"); err != nil || c.Path != "crossover" {
		t.Fatalf("%+v, %v", c, err)
	}
}

// What is to stay stays, at the end that accepted it, whatever becomes of the rest.
func TestPathDownSparesSome(t *testing.T) {
	w := newWorld(t, PSK, nil)
	w.beta.Handle("raft", echo)
	w.beta.Handle("path", echo)
	ctx := testContext(t)
	asked, err := w.alpha.Dial(ctx, "beta", "crossover", "path")
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.alpha.Dial(ctx, "beta", "crossover", "raft")
	if err != nil {
		t.Fatal(err)
	}
	w.beta.PathDown("alpha", "crossover", func(c *Conn) bool { return c.accepted && c.Purpose == "path" })
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatalf("%d bytes came over a stream that was to end", n)
	}
	talk(t, asked, []byte("the peer asks on"))
	w.alpha.PathDown("beta", "crossover", func(c *Conn) bool { return c.accepted })
	if _, err := asked.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("a stream that this node dialed: %v", err)
	}
}
