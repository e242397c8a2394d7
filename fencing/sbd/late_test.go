package sbd

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hapair/fencing/device"
)

// A pill that the disk took late, when nobody waits for it any more, is taken back at
// once: the two may have met since.
func TestPillThatIsLate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		w.set(func() { w.linked, w.hangs = false, make(chan struct{}) })
		if out, said, _, _ := w.fence(Takes(bites)); out != device.Unknown {
			t.Errorf("%v: %s", out, said)
		}
		w.set(func() { w.linked = true })
		w.run(time.Minute)
		w.set(func() { close(w.hangs); w.hangs = nil })
		w.run(time.Minute)
		if m := w.mailOfBeta(t); w.isOff() || m.Pill || m.Seq != 2 {
			t.Errorf("off: %v; %+v", w.isOff(), m)
		}
	})
}

// A pill that could not be taken back when the two met is when the disk is there again,
// by an agent that has started since, too. One that waits is left.
func TestPillThatIsLeft(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		w.set(func() { w.linked, w.beta.broken = false, true })
		time.AfterFunc(3*time.Second, func() {
			w.set(func() { w.broken, w.linked = true, true })
			go w.run(3 * time.Minute)
		})
		if out, said, counts, _ := w.fence(time.Minute); out != device.Unknown || counts || !w.mailOfBeta(t).Pill {
			t.Fatalf("%v: %s", out, said)
		}
		time.Sleep(time.Minute)
		w.set(func() { w.broken = false })
		cfg := w.device(time.Minute)
		cfg.Hears = func() bool { return false }
		if err := New(cfg).Monitor(t.Context()); err != nil || !w.mailOfBeta(t).Pill {
			t.Errorf("taken back though the two do not hear each other, %v", err)
		}
		if err := New(w.device(time.Minute)).Monitor(t.Context()); err != nil || w.mailOfBeta(t).Pill {
			t.Errorf("it is still there: %v", err)
		}
		w.set(func() { w.beta.broken = false })
		time.Sleep(3 * time.Minute)
		if w.isOff() {
			t.Error("it went down by a pill of before the two met")
		}
	})
}

// Who finds a pill for itself after it has written one takes that back: it stood still
// meanwhile, and the other one may be all that is left.
func TestBothHavePills(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		w.set(func() { w.linked, w.hangs = false, make(chan struct{}) })
		time.AfterFunc(5*time.Second, func() {
			own := Mail{Disk: Name("disk"), Pill: true, To: Name("alpha"), From: "beta"}
			w.set(func() { w.store[2] = [recordBytes]byte(own.encode()); close(w.hangs); w.hangs = nil })
		})
		out, said, _, _ := w.fence(2 * time.Minute)
		time.Sleep(time.Minute)
		if out != device.Unknown || !strings.Contains(said, "itself is told to go down") || w.isOff() {
			t.Errorf("%v: %s; off: %v", out, said, w.isOff())
		}
	})
}

// A disk that answers nothing is told of, as one that fails is, while the two hear each
// other; and so is that it answers again.
func TestReaderThatHangs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		r, hangs := w.beta.process.reader, make(chan struct{})
		w.set(func() { w.beta.hangs = hangs })
		w.run(time.Hour)
		if err := r.Trouble(); err == nil || !strings.Contains(err.Error(), "has not answered for") || w.isOff() || len(w.tells) != 1 {
			t.Errorf("%v, %q; off: %v", err, w.tells, w.isOff())
		}
		if why := r.Why(w.now() + bites); !strings.Contains(why, "(it does not answer)") {
			t.Error(why)
		}
		w.set(func() { w.beta.hangs = nil })
		close(hangs)
		w.run(time.Minute)
		if err := r.Trouble(); err != nil || w.isOff() || len(w.tells) != 2 || !strings.Contains(w.tells[1], "again") {
			t.Errorf("%v, %q; off: %v", err, w.tells, w.isOff())
		}
	})
}

// A disk that answers nothing is not asked without end: each question would hold a thread.
func TestDiskThatHangs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		cfg, opens, hangs := w.device(time.Minute), atomic.Int32{}, make(chan struct{})
		well := cfg.Open
		cfg.Open = func() (Disk, error) { opens.Add(1); <-hangs; return well() }
		cfg.Look = cfg.Open
		d := New(cfg)
		ask := func(do func(ctx context.Context) error) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return do(ctx)
		}
		fence := func(ctx context.Context) error {
			out, said := d.Off(ctx, device.Order{Node: "beta"})
			if out == device.Unknown {
				return errors.New(said)
			}
			return nil
		}
		for range 20 {
			if err := ask(d.Monitor); err == nil || !strings.Contains(err.Error(), "does not answer") {
				t.Fatal(err)
			}
		}
		if n := opens.Load(); n != 1 {
			t.Errorf("looked %d times", n)
		}
		for range 20 {
			if err := ask(fence); err == nil || !strings.Contains(err.Error(), "does not answer") {
				t.Fatal(err)
			}
		}
		if n := opens.Load(); n != hangsMax {
			t.Errorf("asked %d times", n)
		}
		close(hangs)
		synctest.Wait()
		if err := ask(d.Monitor); err != nil || w.mailOfBeta(t).Pill || w.isOff() {
			t.Errorf("%v; off: %v", err, w.isOff())
		}
	})
}

// What the writer takes for the disk is not the one that is read: another of the same
// cluster, under a name that came to mean another disk, or in a file that differs between
// the nodes; or that disk as it was once. What an earlier life has left there proves
// nothing.
func TestAnotherDisk(t *testing.T) {
	for name, c := range map[string]struct {
		began func(w *world) // what beta does after the old disk was left as it is
		head  string
	}{
		"booted from then on":        {func(w *world) { w.beta.reset(); w.boot(bites).start() }, "another"},
		"in the same boot":           {func(w *world) { w.beta.process.end(); w.set(func() { w.beta.process = nil }); w.beta.start() }, "another"},
		"rolled back":                {func(w *world) { w.beta.reset(); w.boot(bites).start() }, "disk"},
		"rolled back, the same boot": {func(w *world) { w.beta.process.end(); w.set(func() { w.beta.process = nil }); w.beta.start() }, "disk"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.run(time.Minute)
				was := w.store
				w.set(func() { w.alphas = &was })
				if c.head != "disk" {
					h := Head{Disk: Name(c.head), Cluster: "shop", Nodes: [2]string{"alpha", "beta"}, Made: at}
					if err := h.found(&handle{w, &process{m: w.beta}}); err != nil {
						t.Fatal(err)
					}
				}
				c.began(w)
				w.run(time.Minute)
				w.set(func() { w.linked = false })
				if out, said, _, over := w.fence(2 * time.Minute); out != device.Refused || over {
					t.Errorf("%v: %s; it is off: %v", out, said, over)
				}
			})
		})
	}
}

// The last pet of all may come late, by a decision that is old, and the kernel's own one
// later still: it pets when a process that was killed has its watchdog closed.
func TestKilledLate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		w.set(func() { w.linked, w.beta.broken = false, true })
		p := w.beta.process
		stands := func() { w.set(func() { p.paused = make(chan struct{}) }) }
		time.AfterFunc(bites/2-1100*time.Millisecond, stands) // what was read is good for this long
		time.AfterFunc(bites/2-1100*time.Millisecond+bites*85/100, func() {
			w.set(func() { close(p.paused); p.paused = nil })
			time.Sleep(time.Millisecond)
			stands()
		})
		time.AfterFunc(bites/2+bites*17/10, p.end)
		if out, said, counts, over := w.fence(2 * time.Minute); out != device.Confirmed || !counts || !over {
			t.Errorf("%v: %s; it is off: %v", out, said, over)
		}
	})
}

// A reader does not go by a disk that was made anew under it.
func TestDiskMadeAnew(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run(time.Minute)
		h := Head{Disk: Name("another"), Cluster: "shop", Nodes: [2]string{"alpha", "beta"}, Made: at}
		if err := h.found(&handle{w, nil}); err != nil {
			t.Fatal(err)
		}
		w.run(time.Minute)
		if err := w.beta.process.reader.Trouble(); !errors.Is(err, ErrAnew) || w.isOff() {
			t.Errorf("%v; off: %v", err, w.isOff())
		}
		if out, said, _, _ := w.fence(time.Minute); out != device.Refused {
			t.Errorf("%v: %s", out, said)
		}
		w.beta.stop() // nobody relies on it
		time.Sleep(time.Hour)
		if w.isOff() {
			t.Error("reset after a stop in order")
		}
	})
}
