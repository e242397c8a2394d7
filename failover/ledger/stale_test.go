package ledger

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// leads makes node the leader of raft: the other data node is stopped for a moment.
func (c *cluster) leads(node, other string) {
	c.t.Helper()
	c.eventually(5*time.Second, "somebody leads", func() bool { return c.node(node).Status().Leader != "" })
	if c.node(node).Status().Leader == node {
		return
	}
	c.crash(other)
	c.eventually(10*time.Second, node+" leads", func() bool { return c.node(node).Status().Leader == node })
	c.open(other)
	c.eventually(5*time.Second, other+" has caught up", func() bool { return c.node(other).Status().Leader == node })
}

// cutOffAndExcludes has a, Primary and leader, lose everybody and propose the
// exclusion of b: the entry is in its log and nowhere else. It goes on asking in the
// background, and answers on the channel.
func (c *cluster) cutOffAndExcludes(ctx context.Context) (Record, chan error) {
	c.t.Helper()
	c.leads("a", "b")
	r := c.primary("a", "r")
	a := c.node("a")
	_, before := a.lastLog()
	c.net.Isolate("a")
	answer := make(chan error, 1)
	go func() {
		_, err := a.Exclude(ctx, "r", "b", r.Token)
		answer <- err
	}()
	index := func() uint64 { i, _ := a.lastLog(); return i }
	began := index()
	c.eventually(time.Second, "the exclusion is in the log of a", func() bool { return index() > began })
	if now, _ := a.Record("r"); !now.Equal(r) || before == 0 {
		c.t.Fatalf("committed by one of three: %+v", now)
	}
	return r, answer
}

// A Primary that is cut off proposes to take its peer out of the set, and the peer
// is promoted meanwhile. The proposal does not count any more, neither as the entry
// in the old log nor when it is made again: the token has moved on.
func TestExclusionOfADeposedPrimaryIsRefused(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_, answer := c.cutOffAndExcludes(ctx)
		c.takeOver(c.node("b"), "r")
		c.net.HealAll()
		if err := <-answer; !errors.Is(err, ErrStale) {
			t.Fatalf("the exclusion under an old token: %v", err)
		}
		for _, n := range []string{"a", "b", "w"} {
			c.eventually(5*time.Second, n+" knows", func() bool {
				r, _ := c.node(n).Record("r")
				return r.Primary == "b" && slices.Equal(r.InSync, []string{"a", "b"})
			})
		}
	})
}

// The same Primary dies, and the witness: nobody is promoted. Whoever comes back
// with the longer log decides: the exclusion counts, since a node may have answered
// writes under it for all that the others can know. It costs nobody a promotion that
// there was, and the dead Primary's copy is the one that may go on.
func TestExclusionOfADeadPrimaryCountsWhileNobodyWasPromoted(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		r, answer := c.cutOffAndExcludes(limit(time.Second))
		c.crash("w")
		c.crash("a")
		if err := <-answer; err == nil {
			t.Fatal("excluded by one of three")
		}
		if _, err := c.node("b").Promote(limit(time.Second), "r", "b", r.Token); err == nil {
			t.Fatal("b alone is promoted")
		}
		c.net.HealAll()
		c.net.Isolate("b") // else it might lead, and the entry of a would be dropped
		c.open("a")
		c.open("w")
		c.eventually(10*time.Second, "a leads", func() bool { return c.node("w").Status().Leader == "a" })
		c.net.HealAll()
		c.eventually(10*time.Second, "the exclusion is committed", func() bool {
			now, _ := c.node("b").Record("r")
			return now.Token == r.Token+1 && slices.Equal(now.InSync, []string{"a"}) && now.Primary == "a"
		})
		if _, err := c.node("b").Promote(limit(time.Second), "r", "b", r.Token+1); !errors.Is(err, ErrNotInSync) {
			t.Fatalf("a copy that the ledger does not count is promoted: %v", err)
		}
		c.takeOver(c.node("a"), "r")
	})
}
