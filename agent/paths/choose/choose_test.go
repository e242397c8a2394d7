package choose

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// world plays a pair of paths: each tick a question goes out on both, and comes
// back where the path carries it.
type world struct {
	t       *testing.T
	c       *Chooser
	now     time.Duration
	carries map[string]bool // frames of full size
	heart   map[string]bool
	late    map[string]time.Duration // the round trip
	coming  []Evidence               // answers on their way
	changes []Change
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: time.Hour, carries: map[string]bool{"crossover": true, "lan": true}, heart: map[string]bool{}, late: map[string]time.Duration{}}
	w.c = New(Config{Paths: []string{"crossover", "lan"}}, w.now)
	w.run(time.Second)
	w.want("crossover", Good)
	w.want("lan", Good)
	return w
}

func (w *world) step(e ...Evidence) { w.changes = append(w.changes, w.c.Step(w.now, e...)...) }

func (w *world) run(d time.Duration) {
	for end := w.now + d; w.now < end; w.now += 50 * ms {
		for _, p := range []string{"crossover", "lan"} {
			w.step(Evidence{Kind: Asked, Path: p})
		}
		for _, p := range []string{"crossover", "lan"} {
			if w.carries[p] {
				w.coming = append(w.coming, Evidence{Kind: Answered, Path: p, Sent: w.now})
			}
		}
		coming := w.coming
		w.coming = nil
		for _, e := range coming {
			if w.now-e.Sent >= w.late[e.Path] {
				w.step(e)
			} else {
				w.coming = append(w.coming, e)
			}
		}
	}
}

func (w *world) view(path string) View {
	for _, v := range w.c.Views() {
		if v.Path == path {
			return v
		}
	}
	w.t.Fatalf("no path %q", path)
	return View{}
}

func (w *world) want(path string, s State) {
	w.t.Helper()
	if v := w.view(path); v.State != s {
		w.t.Fatalf("%s is %s (%s), wanted %s", path, v.State, v.Because, s)
	}
}

// Frames of full size vanish, the heartbeat is answered: bad within a third of a
// second, and well again only after the hold.
func TestLargeFramesVanish(t *testing.T) {
	w := newWorld(t)
	w.carries["crossover"] = false
	w.run(150 * ms)
	w.want("crossover", Good)
	w.run(150 * ms)
	w.want("crossover", Bad)
	if p := w.c.Preferred(); p != "lan" {
		t.Fatal(p)
	}
	if why := w.view("crossover").Because; !strings.Contains(why, "full size") {
		t.Fatal(why)
	}
	w.run(time.Hour / 100)
	w.want("crossover", Bad)
	w.carries["crossover"] = true
	w.run(DefaultHold)
	w.want("crossover", Held)
	w.run(100 * ms)
	w.want("crossover", Good)
}

// Where answers have been slow lately, one that is late means less; and a path over
// which nothing has come back yet is given time.
func TestPatience(t *testing.T) {
	w := newWorld(t)
	w.now += 190 * ms
	w.step(Evidence{Kind: Asked, Path: "crossover"}, Evidence{Kind: Asked, Path: "lan"})
	asked := w.now
	w.now += 150 * ms
	w.step(Evidence{Kind: Answered, Path: "crossover", Sent: asked}, Evidence{Kind: Answered, Path: "lan", Sent: asked})
	w.carries["crossover"] = false
	w.run(300 * ms)
	w.want("crossover", Good)
	w.run(100 * ms)
	w.want("crossover", Bad)

	fresh := &world{t: t, now: time.Hour, carries: map[string]bool{"lan": true}}
	fresh.c = New(Config{Paths: []string{"crossover", "lan"}}, fresh.now)
	fresh.run(10*DefaultPatience - 50*ms)
	fresh.want("crossover", Unknown)
	fresh.run(100 * ms)
	fresh.want("crossover", Bad)
}

// A path that becomes slow, and loses nothing, is left once: the answer that was late
// tells how long to wait.
func TestSlowPathIsLeftOnce(t *testing.T) {
	w := newWorld(t)
	w.late["crossover"] = 300 * ms
	w.run(DefaultHold + 2*time.Second)
	w.want("crossover", Good)
	w.run(20 * time.Second)
	if v := w.view("crossover"); v.State != Good || v.Losses != 1 {
		t.Errorf("%+v", v)
	}
}

// The heartbeat's word counts at once, and its taking back as well, after a hold.
func TestHeartbeat(t *testing.T) {
	w := newWorld(t)
	w.step(Evidence{Kind: Unreached, Path: "crossover", Note: "no carrier"})
	w.want("crossover", Bad)
	if c := w.changes[len(w.changes)-1]; c.Because != "no carrier" {
		t.Fatal(c)
	}
	w.carries["crossover"] = false
	w.run(time.Second)
	w.step(Evidence{Kind: Reached, Path: "crossover"})
	w.want("crossover", Bad) // nothing of full size has come back yet
	w.carries["crossover"] = true
	w.run(50 * ms)
	w.want("crossover", Held)
}

// A peer that stands still, and answers over one path a moment before the other,
// has lost neither; nor has a node that stood still itself.
func TestStandstill(t *testing.T) {
	w := newWorld(t)
	w.carries["crossover"], w.carries["lan"] = false, false
	w.run(3 * time.Second)
	w.carries["crossover"], w.carries["lan"] = true, true
	w.step(Evidence{Kind: Answered, Path: "lan", Sent: w.now})
	w.now += 20 * ms
	w.step()
	w.step(Evidence{Kind: Answered, Path: "crossover", Sent: w.now})
	w.want("crossover", Good)
	w.want("lan", Good)

	w.step(Evidence{Kind: Asked, Path: "crossover"}, Evidence{Kind: Asked, Path: "lan"})
	w.step(Evidence{Kind: Answered, Path: "lan", Sent: w.now})
	w.now += time.Hour
	w.step()
	w.want("crossover", Good)
}

// Each loss doubles the time for which a path is not used, up to a bound; a long
// time without one forgives them all.
func TestHoldDoubles(t *testing.T) {
	w := newWorld(t)
	lose := func() time.Duration {
		w.step(Evidence{Kind: Unreached, Path: "crossover", Note: "no carrier"})
		w.step(Evidence{Kind: Reached, Path: "crossover"})
		w.run(50 * ms)
		w.want("crossover", Held)
		return w.c.find("crossover").hold
	}
	want := DefaultHold
	for range 12 {
		if got := lose(); got != want {
			t.Fatalf("held for %s, wanted %s", got, want)
		}
		want = min(2*want, DefaultHoldMax)
	}
	if v := w.view("crossover"); v.Losses != 12 || v.Hold <= DefaultHoldMax-time.Second || v.Hold > DefaultHoldMax {
		t.Fatalf("%+v", v)
	}
	w.run(DefaultHoldMax + time.Second)
	w.want("crossover", Good)
	w.run(forgiven * DefaultHoldMax)
	if got := lose(); got != DefaultHold {
		t.Fatalf("held for %s after a long time", got)
	}
}

// A peer of an earlier release is judged by the heartbeat alone.
func TestEarlierRelease(t *testing.T) {
	w := newWorld(t)
	w.step(Evidence{Kind: Asked, Path: "crossover"}, Evidence{Kind: Unasked, Path: "crossover"})
	w.now += time.Second
	w.step(Evidence{Kind: Asked, Path: "lan"})
	w.step(Evidence{Kind: Answered, Path: "lan", Sent: w.now})
	w.want("crossover", Good)
	w.step(Evidence{Kind: Unreached, Path: "crossover"})
	w.want("crossover", Bad)
	w.step(Evidence{Kind: Reached, Path: "crossover"})
	w.want("crossover", Held)
}

// Whatever happens: a path that is bad or held is not preferred; one is used again
// only after its hold without anything against it; holds are bounded; and silence
// alone never takes every path away.
func TestWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		paths := []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(t, "paths")]
		now := time.Hour
		c := New(Config{Paths: paths}, now)
		heart := rapid.Bool().Draw(t, "heartbeat speaks")
		badAt := map[string]time.Duration{} // when something was last against it
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 120).Draw(t, "ms")) * ms
			e := Evidence{Kind: Kind(rapid.IntRange(3, 4).Draw(t, "kind")), Path: rapid.SampledFrom(paths).Draw(t, "path"), Sent: now - time.Duration(rapid.IntRange(0, 100).Draw(t, "late"))*ms}
			if heart && rapid.IntRange(0, 9).Draw(t, "heart") == 0 {
				e.Kind = Kind(rapid.IntRange(1, 2).Draw(t, "word"))
			}
			for _, ch := range c.Step(now, e) {
				switch {
				case ch.Now == Bad:
					badAt[ch.Path] = now
				case ch.Now == Good && ch.Was != Unknown:
					if x := c.find(ch.Path); ch.Was != Held || x.hold < DefaultHold || x.hold > DefaultHoldMax || now-badAt[ch.Path] < x.hold {
						t.Fatalf("%+v %s after it was bad, hold %s", ch, now-badAt[ch.Path], x.hold)
					}
				}
			}
			p := c.Preferred()
			views := c.Views()
			i := slices.IndexFunc(views, func(v View) bool { return v.State.Usable() })
			if (p == "") != (i < 0) || p != "" && views[i].Path != p {
				t.Fatalf("%q is preferred of %+v", p, views)
			}
			if !heart && !slices.ContainsFunc(views, func(v View) bool { return v.State != Bad }) {
				t.Fatalf("silence alone: %+v", views)
			}
		}
	})
}
