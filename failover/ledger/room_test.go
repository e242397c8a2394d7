package ledger

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hapair/failover/ledger/logstore"
)

// small puts a node's directory onto a filesystem of a few MiB.
func (c *cluster) small(node string) {
	c.t.Helper()
	if os.Geteuid() != 0 {
		c.t.Skip("needs root: a filesystem of its own")
	}
	dir := filepath.Join(c.dir, node)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = unix.Mount("none", dir, "tmpfs", 0, "size=8m")
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil { // a test that failed has files open
			c.t.Error(err)
		}
	})
}

// fill leaves no room beside a node's directory.
func (c *cluster) fill(node string) {
	c.t.Helper()
	f, err := os.OpenFile(filepath.Join(c.dir, node, "full"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.Copy(f, zeroes{}); !errors.Is(err, unix.ENOSPC) {
		c.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// empty makes room again.
func (c *cluster) empty(node string) {
	c.t.Helper()
	if err := os.Remove(filepath.Join(c.dir, node, "full")); err != nil {
		c.t.Fatal(err)
	}
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// While others have filled the filesystem a node goes alone, and the other one rejoins,
// again and again: no I/O is frozen until somebody makes room.
func TestGoesAloneAndRejoinsOnAFullFilesystem(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.small("a")
		c.small("b")
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		for range 3 {
			c.fill("a")
			c.fill("b")
			c.forget()
			c.backFromAlone()
			if err := c.node("b").Status().Err; err != nil {
				t.Fatalf("b: %v", err)
			}
			time.Sleep(2 * roomEvery)
		}
		if !c.holds("a", "r")() {
			t.Errorf("%v hold the lease", c.holders("r"))
		}
	})
}

// useUp has a node's own reserve used up as well.
func (c *cluster) useUp(node string) {
	c.t.Helper()
	store := c.node(node).store
	for _, size := range []int{100 << 10, 1 << 10, 1} {
		for i, err := 0, error(nil); err == nil; i++ {
			if err = store.Set(fmt.Appendf(nil, "%d of %d", i, size), make([]byte, size)); err != nil && !errors.Is(err, logstore.ErrNoRoom) {
				c.t.Fatal(err)
			}
		}
	}
}

// withoutRoom has entries be committed that one data node has no room for.
func (c *cluster) withoutRoom(before func(full *Ledger)) (full *Ledger) {
	c.t.Helper()
	c.small("a")
	c.small("b")
	c.openAll()
	c.watch("r")
	c.primary("a", "r")
	lead, full := c.node("a"), c.node("b")
	if full.Status().State == "leader" {
		lead, full = full, lead
	}
	c.fill(full.cfg.Self)
	c.useUp(full.cfg.Self)
	before(full)
	if _, err := lead.Declare(limit(5*time.Second), "s", []string{"a", "b"}, 0); err != nil {
		c.t.Fatal(err)
	}
	return full
}

// A follower with no room left for an entry has it as soon as there is some, and no disk
// that failed.
func TestFollowerWithoutRoom(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		full := c.withoutRoom(func(*Ledger) {})
		knows := func() bool { _, ok := full.Record("s"); return ok }
		time.Sleep(2 * time.Second)
		if s := full.Status(); s.Err != nil || knows() {
			t.Fatalf("%v; knows %t", s.Err, knows())
		}
		c.empty(full.cfg.Self)
		c.eventually(20*time.Second, "it has the entry", knows)
		if !c.holds("a", "r")() {
			t.Errorf("%v hold the lease", c.holders("r"))
		}
	})
}

// But where the end of the log is gone already raft does not know that, and would refuse
// the entries for ever: that is told.
func TestFollowerWithoutRoomForWhatReplacesItsEnd(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		full := c.withoutRoom(func(full *Ledger) { full.group().guard.cut.Store(true) })
		c.eventually(2*time.Second, "the disk has failed", func() bool { return errors.Is(full.Status().Err, ErrDisk) })
	})
}

// Who has to rejoin, and no room for it, stays what it was until there is some.
func TestRejoinsWhenThereIsRoom(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.small("b")
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		c.crash("b")
		if err := c.node("a").GoAlone(limit(5*time.Second), "peer gone"); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(c.dir, "b", "log.ballast")); err != nil {
			t.Fatal(err)
		}
		c.fill("b")
		b := c.open("b")
		time.Sleep(3 * time.Second)
		if s := b.Status(); s.Err != nil || b.group() == nil || c.happened("b:rejoining:a") {
			t.Fatalf("%+v, events %v", s, c.events)
		}
		c.empty("b")
		c.eventually(5*time.Second, "b is a voter again", func() bool { return c.happened("b:rejoined:b") })
		if !c.holds("a", "r")() {
			t.Errorf("%v hold the lease", c.holders("r"))
		}
	})
}

// A ledger that is to be discarded, and goes on because there is no room for another, has
// its leases again.
func TestLeasesComeBackWithALedgerThatGoesOn(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.small("a")
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		if err := os.Remove(filepath.Join(c.dir, "a", "log.ballast")); err != nil {
			t.Fatal(err)
		}
		c.fill("a")
		a := c.node("a")
		a.admin.Lock()
		err := a.adopt(c.node("b").greeting(), "a test")
		a.admin.Unlock()
		if !errors.Is(err, logstore.ErrNoRoom) {
			t.Fatal(err)
		}
		if c.holds("a", "r")() {
			t.Fatal("the lease is held while the ledger that it rests on was to go")
		}
		c.eventually(5*time.Second, "a holds the lease again", c.holds("a", "r"))
		c.empty("a")
	})
}
