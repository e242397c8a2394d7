package recorder

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// A node that nobody knew of is followed from then on, what it did before too; what an
// earlier life heard of it is on disk.
func TestFollowLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alone := func() *Recorder {
			r, err := New(Config{Self: "alpha", Dir: filepath.Join(w.dir, "alpha"), Now: time.Now,
				Dial: func(_ context.Context, to string) (net.Conn, error) { return w.dial("alpha", to) }})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.AwaitLoaded(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.nodes["alpha"] = r
			r.Start()
			return r
		}
		r := alone()
		w.start("gamma", 0)
		w.says("gamma", "g1")
		time.Sleep(2 * retryMost)
		w.tells("alpha", "")
		r.Follow("gamma")
		r.Follow("gamma")
		r.Follow("alpha")
		settle()
		w.says("gamma", "g2")
		settle()
		w.tells("alpha", "g1 g2")
		w.stop("alpha")
		delete(w.cut, "alpha")
		w.stop("gamma")
		r = alone()
		r.Follow("gamma")
		settle()
		w.start("gamma", 0)
		w.says("gamma", "g3")
		time.Sleep(2 * retryMost)
		w.tells("alpha", "g1 g2 g3")
		w.stopAll()
		r.Follow("beta") // after the end: nothing
	})
}
