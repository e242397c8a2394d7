package ledger

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
