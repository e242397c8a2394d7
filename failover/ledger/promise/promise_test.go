package promise

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"hapair/failover/lease"
)

const (
	longest = 100 * time.Millisecond
	margin  = 10 * time.Millisecond
	begin   = time.Hour
	ready   = begin + longest + margin
)

func ask(holder string, tenure lease.Token, seq uint64) Ask {
	return Ask{Resource: "r", Holder: holder, Tenure: tenure, Session: holder + "1", Seq: seq, Duration: longest}
}

func TestRenew(t *testing.T) {
	a2 := Known{Tenure: 2, Primary: "a"}
	type step struct {
		at    time.Duration
		ask   Ask
		known Known
		want  Refusal
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"a young voter waits", []step{{begin, ask("a", 2, 1), a2, TooYoung}, {ready - 1, ask("a", 2, 2), a2, TooYoung}, {ready, ask("a", 2, 3), a2, ""}}},
		{"one holder at a time", []step{
			{ready, ask("a", 2, 1), a2, ""},
			{ready + longest, ask("b", 3, 1), a2, Promised},
			{ready + longest + margin - 1, ask("b", 3, 2), a2, Promised},
			{ready + longest + margin, ask("b", 3, 3), a2, ""},
		}},
		{"a newer tenure stops the older at once", []step{
			{ready, ask("a", 2, 1), a2, ""}, {ready + 1, ask("b", 3, 1), a2, Promised}, {ready + 2, ask("a", 2, 2), a2, Outdated},
		}},
		{"the ledger's newer tenure stops the older", []step{{ready, ask("a", 2, 1), Known{Tenure: 3, Primary: "b"}, Outdated}}},
		{"the ledger's primary only", []step{{ready, ask("b", 2, 1), a2, NotYours}}},
		{"not after demotion", []step{{ready, ask("a", 2, 1), Known{Tenure: 2}, NotYours}}},
		{"late duplicate", []step{{ready, ask("a", 2, 5), a2, ""}, {ready + 1, ask("a", 2, 5), a2, Stale}, {ready + 1, ask("a", 2, 4), a2, Stale}}},
		{"no longer than promised", []step{{ready, Ask{Resource: "r", Holder: "a", Tenure: 2, Seq: 1, Duration: longest + 1}, a2, TooLong}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab := New(begin, longest, longest, margin)
			for i, s := range c.steps {
				if got := tab.Renew(s.at, s.ask, s.known); got != s.want {
					t.Fatalf("step %d: %q, wanted %q", i, got, s.want)
				}
			}
		})
	}
}

// What was promised before is waited for, and not promised any more; nor the reverse.
func TestAnotherLeaseThanBefore(t *testing.T) {
	known := Known{Tenure: 2, Primary: "a"}
	for forgotten, wait := range map[time.Duration]time.Duration{3 * longest: 3 * longest, longest / 2: longest} {
		tab := New(begin, forgotten, longest, margin)
		if got := tab.ReadyAt(); got != begin+wait+margin {
			t.Errorf("%v forgotten: ready at %v", forgotten, got-begin)
		}
		a := ask("a", 2, 1)
		a.Duration = tab.Longest() + 1
		if got := tab.Renew(tab.ReadyAt(), a, known); got != TooLong {
			t.Errorf("%v forgotten: longer than promised: %q", forgotten, got)
		}
		a.Duration = tab.Longest()
		if got := tab.Renew(tab.ReadyAt(), a, known); got != "" || a.Duration != longest {
			t.Errorf("%v forgotten: %v is refused: %q", forgotten, a.Duration, got)
		}
	}
}

func TestReleaseIsIgnoredWhenLate(t *testing.T) {
	tab := New(begin, longest, longest, margin)
	known := Known{Tenure: 2, Primary: "a"}
	tab.Renew(ready, ask("a", 2, 5), known)
	if tab.Release(ready+1, ask("a", 2, 4)) {
		t.Fatal("a hand-back from before the promise took it")
	}
	other := ask("a", 2, 9)
	other.Session = "a0"
	if tab.Release(ready+1, other) {
		t.Fatal("another process's hand-back took it")
	}
	if lapsed, known := tab.Lapsed(ready+1, "r", "b", 0); lapsed || !known {
		t.Fatal("promise is gone")
	}
	if !tab.Release(ready+1, ask("a", 2, 6)) {
		t.Fatal("hand-back refused")
	}
	if lapsed, _ := tab.Lapsed(ready+1, "r", "b", 0); !lapsed {
		t.Fatal("promise stands after the hand-back")
	}
	if got := tab.Renew(ready+2, ask("a", 2, 5), known); got != Stale {
		t.Fatalf("a renewal older than the hand-back: %q", got)
	}
}

// Who is certainly off is promised nothing any more; the others are.
func TestFenced(t *testing.T) {
	tab := New(begin, longest, longest, margin)
	of := func(resource, holder string) Ask { a := ask(holder, 2, 1); a.Resource = resource; return a }
	for resource, holder := range map[string]string{"r": "a", "s": "b"} {
		if got := tab.Renew(ready, of(resource, holder), Known{Tenure: 2, Primary: holder}); got != "" {
			t.Fatal(got)
		}
	}
	tab.Fenced(ready+1, "a")
	if h, _ := tab.Holder(ready+1, "r"); h != "" {
		t.Errorf("r is promised to %s", h)
	}
	if h, left := tab.Holder(ready+1, "s"); h != "b" || left != longest+margin-1 {
		t.Errorf("s is promised to %q for %v", h, left)
	}
	if got := tab.Renew(ready+1, ask("b", 3, 2), Known{Tenure: 3, Primary: "b"}); got != "" {
		t.Errorf("renewal by the survivor: %q", got)
	}
}

func TestLapsed(t *testing.T) {
	tab := New(begin, longest, longest, margin)
	if _, known := tab.Lapsed(begin, "r", "b", 0); known {
		t.Fatal("a young voter claims to know")
	}
	tab.Renew(ready, ask("a", 2, 1), Known{})
	if lapsed, _ := tab.Lapsed(ready, "r", "a", 0); !lapsed {
		t.Fatal("one's own promise counts against one")
	}
	if tab.Lapsed(ready, "r", "b", 3); tab.Renew(ready, ask("a", 2, 2), Known{}) != Outdated {
		t.Fatal("an older tenure is granted after the question")
	}
}

// Three voters with clocks of their own, whose rates differ by what the margin
// allows; holders that ask, hand back, and go on in any order; messages that
// arrive as late as they like; voters that restart. Never do two holders have a
// majority each by their own clocks.
func TestNeverTwoHolders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			w.step(t)
			var valid []string
			for name, h := range w.holders {
				if h.valid(w.now) {
					valid = append(valid, name)
				}
			}
			if len(valid) > 1 {
				t.Fatalf("at %v both %v hold the lease", w.now, valid)
			}
		}
	})
}

type message struct {
	to   int
	from string
	ask  Ask
	rel  bool
	t0   time.Duration // holder's clock
}

type holderModel struct {
	rate   float64
	tenure lease.Token
	held   bool
	seq    uint64
	sent   map[int]time.Duration
}

func (h *holderModel) clock(now time.Duration) time.Duration {
	return time.Duration(float64(now) * h.rate)
}

func (h *holderModel) valid(now time.Duration) bool {
	n := 0
	for _, t0 := range h.sent {
		if h.clock(now) < t0+longest {
			n++
		}
	}
	return h.held && n >= 2
}

type world struct {
	now     time.Duration
	rates   [3]float64
	voters  [3]*Table
	holders map[string]*holderModel
	flying  []message
	tenure  lease.Token
}

func newWorld(t *rapid.T) *world {
	w := &world{now: begin, holders: map[string]*holderModel{}}
	rate := rapid.Float64Range(0.96, 1.04)
	for i := range w.voters {
		w.rates[i] = rate.Draw(t, "voter rate")
		w.voters[i] = New(w.clock(i), longest, longest, margin)
	}
	for _, n := range []string{"a", "b"} {
		w.holders[n] = &holderModel{rate: rate.Draw(t, "holder rate"), sent: map[int]time.Duration{}}
	}
	return w
}

func (w *world) clock(i int) time.Duration { return time.Duration(float64(w.now) * w.rates[i]) }

func (w *world) step(t *rapid.T) {
	name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "holder")
	h := w.holders[name]
	switch rapid.IntRange(0, 9).Draw(t, "what") {
	case 0: // promoted
		w.tenure++
		h.tenure, h.held, h.sent = w.tenure, true, map[int]time.Duration{}
	case 1: // hands back
		h.held = false
		clear(h.sent)
		w.send(name, h, true)
	case 2, 3, 4:
		if h.held {
			w.send(name, h, false)
		}
	case 5, 6, 7:
		w.deliver(t)
	case 8:
		w.now += time.Duration(rapid.Int64Range(0, int64(longest)).Draw(t, "passes"))
	case 9:
		if i := rapid.IntRange(0, 8).Draw(t, "restart"); i < 3 {
			w.voters[i] = New(w.clock(i), longest, longest, margin)
		}
	}
}

func (w *world) send(name string, h *holderModel, rel bool) {
	for i := range w.voters {
		h.seq++
		a := Ask{Resource: "r", Holder: name, Tenure: h.tenure, Session: name, Seq: h.seq, Duration: longest}
		w.flying = append(w.flying, message{i, name, a, rel, h.clock(w.now)})
	}
}

// deliver hands any message in flight to its voter, and the grant to the holder.
func (w *world) deliver(t *rapid.T) {
	for range min(len(w.flying), 3) {
		k := rapid.IntRange(0, len(w.flying)-1).Draw(t, "message")
		m := w.flying[k]
		w.flying = append(w.flying[:k], w.flying[k+1:]...)
		v, h := w.voters[m.to], w.holders[m.from]
		if m.rel {
			v.Release(w.clock(m.to), m.ask)
			continue
		}
		if v.Renew(w.clock(m.to), m.ask, Known{}) == "" && h.held && h.tenure == m.ask.Tenure {
			h.sent[m.to] = max(h.sent[m.to], m.t0)
		}
	}
}
