package ledger

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// wipes has a node lose its directory, and come back as if new.
func (c *cluster) wipes(node string) {
	c.t.Helper()
	if err := os.RemoveAll(filepath.Join(c.dir, node)); err != nil {
		c.t.Fatal(err)
	}
	c.open(node)
}

// excluded has a, Primary, take b out of the set while b is away: nobody but a and
// the witness knows. Then the witness loses its directory.
func (c *cluster) excluded() Record {
	c.t.Helper()
	c.openAll()
	c.watch("r")
	c.leads("a", "b")
	r := c.primary("a", "r")
	c.crash("b")
	r = must2(c.t)(c.node("a").Exclude(limit(5*time.Second), "r", "b", r.Token))
	c.crash("w")
	return r
}

// A witness whose directory is lost has forgotten what it acknowledged. With the
// other one that was away it must not make a majority: the two would promote the
// copy that was taken out of the set.
func TestVoterThatLostItsDirectoryDoesNotDecide(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		r := c.excluded()
		c.crash("a")
		c.wipes("w")
		b := c.open("b")
		w := c.node("w")
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if got, err := b.Promote(ctx, "r", "b", 2); err == nil {
			t.Fatalf("promoted by a voter that has forgotten %+v: %+v", r, got)
		}
		if s := w.Status(); s.State != "blank" || s.Promising {
			t.Fatalf("%+v", s)
		}
		a := c.open("a")
		c.eventually(10*time.Second, "all three agree", func() bool {
			got, _ := w.Record("r")
			had, _ := b.Record("r")
			return got.Equal(r) && had.Equal(r) && w.Status().Promising
		})
		a.Hold("r", r.Tenure)
		c.eventually(5*time.Second, "a serves again", c.holds("a", "r"))
		c.crash("a") // now the witness counts, and lets nobody in who may not be let in
		if got, err := b.Promote(limit(10*time.Second), "r", "b", r.Token); err == nil {
			t.Fatalf("promoted, and not in sync: %+v", got)
		}
	})
}

// While the Primary is there, and the other data node not, the witness that lost its
// directory does not count either: what it acknowledged before may be with the
// absent one alone. When that one is back it does.
func TestVoterThatLostItsDirectoryWaitsForAll(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		r := c.excluded()
		c.wipes("w")
		time.Sleep(10 * time.Second)
		if s := c.node("w").Status(); s.State != "blank" {
			t.Fatalf("%+v", s)
		}
		if c.holds("a", "r")() {
			t.Fatal("a lease by a voter that forgot")
		}
		c.open("b")
		c.eventually(5*time.Second, "a serves", c.holds("a", "r"))
		c.eventually(5*time.Second, "w counts", func() bool { return c.node("w").Status().Promising })
		c.crash("b")
		time.Sleep(5 * time.Second)
		if !c.holds("a", "r")() {
			t.Fatal("with the witness back")
		}
		if got, _ := c.node("w").Record("r"); !got.Equal(r) {
			t.Fatalf("%+v", got)
		}
	})
}

// An operator who knows that the absent one is gone says so.
func TestVoterThatLostItsDirectoryIsVouchedFor(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.excluded()
		c.wipes("w")
		w := c.node("w")
		if err := w.Begin(limit(time.Second), "nobody is here"); !errors.Is(err, ErrBlank) {
			t.Fatal(err)
		}
		c.eventually(time.Second, "w has met a", func() bool { return slices.Equal(w.Status().Unmet, []string{"b"}) })
		if err := w.Begin(limit(time.Second), "b burned"); err != nil {
			t.Fatal(err)
		}
		c.eventually(5*time.Second, "a serves", c.holds("a", "r"))
		if err := w.Begin(limit(time.Second), "again"); err != nil {
			t.Fatal(err)
		}
	})
}

// The first two of a new group begin without the third; it joins them later.
func TestNewGroupBeginsWithoutTheThird(t *testing.T) {
	for _, late := range []string{"b", "w"} {
		t.Run(late, func(t *testing.T) {
			bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
				for _, v := range c.voters() {
					if v.Node != late {
						c.open(v.Node)
					}
				}
				c.watch("r")
				r := c.primary("a", "r")
				l := c.open(late)
				c.eventually(5*time.Second, late+" knows", func() bool { got, _ := l.Record("r"); return got.Equal(r) && l.Status().State == "follower" })
			})
		})
	}
}

// It crashes in the middle of beginning, or after it: it does not begin anew.
func TestVoterThatHasBegunStaysSo(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		r := c.excluded()
		c.open("b")
		c.wipes("w")
		c.eventually(5*time.Second, "w counts", func() bool { return c.node("w").Status().Promising })
		c.crash("w")
		c.crash("b")
		w := c.open("w")
		c.eventually(5*time.Second, "w counts at once", func() bool { got, _ := w.Record("r"); return got.Equal(r) && w.Status().Promising })
	})
}

// A node begins with an empty log, and the others are gone before it has theirs: an
// operator may force it, and it opens afterwards.
func TestForcedBeforeTheLogHasCome(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("a", "r")
		c.crash("b")
		time.Sleep(2 * time.Second)
		c.wipes("b")
		b := c.node("b")
		for b.isBlank() {
			time.Sleep(100 * time.Microsecond)
		}
		c.crash("a")
		c.crash("w")
		if i, _ := b.lastLog(); i != 0 {
			t.Skip("it has the log already")
		}
		time.Sleep(3 * time.Second)
		if err := b.ForceAlone(limit(5*time.Second), "both burnt"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Declare(limit(5*time.Second), "r", []string{"b"}, 0); err != nil {
			t.Fatal(err)
		}
		c.crash("b")
		b = c.open("b")
		c.eventually(5*time.Second, "it knows", func() bool { r, ok := b.Record("r"); return ok && r.Has("b") })
		c.wipes("a")
		c.eventually(5*time.Second, "a joins it", func() bool { return c.node("a").id().Joining })
		c.wipes("w")
		c.arranged(3)
		c.crash("a")
		c.crash("w")
		c.eventually(5*time.Second, "no quorum", func() bool { return !b.CanChange() })
		if err := b.ForceAlone(limit(5*time.Second), "both burnt again"); err != nil {
			t.Fatal(err)
		}
	})
}
