package failover

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"hapair/failover/lease"
	"hapair/failover/plan"
	"hapair/mirror/state"
)

// The world of these tests: two data nodes and, with a witness, a third
// voter. The ledger is one record that only a node with a quorum may read or
// change. Leases are promises of voters, as in the real one: a majority whose
// members owe nothing to another node. A tick of the world renews leases,
// moves heartbeats and the mirror session, and watches over what must never
// happen.
const (
	tick      = 10 * time.Millisecond
	leaseFor  = 400 * time.Millisecond
	promise   = 440 * time.Millisecond // the voter counts longer
	deadAfter = 600 * time.Millisecond
)

type owed struct {
	to     string
	tenure lease.Token
	until  time.Duration
}

type node struct {
	w        *world
	name     string
	life     sync.Mutex // one start or crash at a time
	up       bool
	dead     chan struct{} // guarded by life, nil: nothing runs
	ctl      *Controller
	cancel   context.CancelFunc
	known    plan.Record // its copy of the record
	read     bool
	held     lease.Token // tenure whose lease is asked for, 0 for none
	lease    lease.Lease
	heard    time.Duration // the peer, last
	everHear bool
	since    time.Duration
	verdict  plan.Verdict
	told     string // digest at the last wake

	role        state.Role
	disk        state.Disk
	suspect     bool
	tenure      lease.Token
	holders     []string
	running     plan.ServiceState
	svcFailed   string
	startFails  int // the next so many starts fail; -1: all
	starts      int
	restarts    int
	notStopped  bool // the next restart cannot stop what it should
	startTakes  time.Duration
	startIgnore bool // a start that does not obey its context
	stopFails   int
	stopTakes   time.Duration // forced stops
	forcedFails bool
	orderly     time.Duration // what other stops take
	slowMark    time.Duration // how long the ledger takes for a mark
	lags        string        // a mark that its replica has, and the ledger no more
	deaf        bool          // hints do not arrive
	aborts      int
	lies        bool // a promotion of the mirror succeeds without effect
	late        int  // the next so many changes of the record come too late
	opens       int
	opensFail   int  // the next so many promotions of the mirror open no device; -1: all
	unopened    bool // it is Primary without a device
	noAlone     error
	events      []Entry
	version     int // of its copy

	fences *Fences
	ballot ballot
	shots  int // fences of its peer that were asked of the device
}

type world struct {
	t       *testing.T
	mu      sync.Mutex
	zero    time.Time
	rec     plan.Record
	owes    map[string]owed
	voters  []string
	cut     map[string]bool // "a-b", sorted
	alone   string
	nodes   map[string]*node
	marks   map[string]bool
	stop    chan struct{}
	done    sync.WaitGroup
	promos  []string
	set     plan.Settings
	wrong   []string
	lastTok lease.Token
	acked   int // version of the last answered write
	device  device
	fenced  []string // outcomes that the ledger keeps
	shot    []string // nodes that a device has turned off
}

func newWorld(t *testing.T, change func(*plan.Settings)) *world {
	s := plan.Defaults()
	s.Run, s.HasServices = true, true
	if change != nil {
		change(&s)
	}
	w := &world{
		t: t, zero: time.Now(), owes: map[string]owed{}, cut: map[string]bool{}, nodes: map[string]*node{}, marks: map[string]bool{},
		stop: make(chan struct{}), set: s, voters: []string{"n1", "n2", "w"},
		rec: plan.Record{Token: 3, Tenure: 2, InSync: []string{"n1", "n2"}},
	}
	if s.Arbitration != plan.Witness {
		w.voters = w.voters[:2]
	}
	for _, name := range []string{"n1", "n2"} {
		w.nodes[name] = &node{w: w, name: name, disk: state.UpToDate, role: state.Secondary, startTakes: 50 * time.Millisecond}
	}
	w.done.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(tick):
				w.tick()
			}
		}
	})
	return w
}

func (w *world) close() {
	for _, n := range w.nodes {
		w.crash(n.name)
	}
	close(w.stop)
	w.done.Wait()
	for _, x := range w.wrong {
		w.t.Error(x)
	}
}

func (w *world) now() time.Duration { return time.Since(w.zero) + time.Minute }

func (w *world) start(name string) {
	n := w.nodes[name]
	peer := map[string]string{"n1": "n2", "n2": "n1"}[name]
	n.life.Lock()
	defer n.life.Unlock()
	if !w.isOn(name) {
		n.end()
	}
	w.arm(n, peer)
	needs := Needs{Ledger: n, Leases: n, Group: n, Marks: n, Mirror: mirror{n}, Heartbeat: n, Peers: n, Services: services{n}}
	if n.fences != nil {
		needs.Fencer = n.fences
	}
	w.mu.Lock()
	n.up, n.read, n.everHear, n.verdict, n.told = true, false, false, plan.Unheard, ""
	w.mu.Unlock()
	c, err := New(Config{
		Resource: "pg", Self: name, Peer: peer, Settings: w.set, Needs: needs, Clock: w.now, Log: zap.NewNop(),
		Events: func(e Entry) { w.mu.Lock(); n.events = append(n.events, e); w.mu.Unlock() },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	w.mu.Lock()
	dead := make(chan struct{})
	n.ctl, n.cancel, n.dead = c, cancel, dead
	w.mu.Unlock()
	w.done.Go(func() {
		defer close(dead)
		if err := c.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
}

// crash is a power cut: everything in memory is gone at once.
func (w *world) crash(name string) {
	n := w.nodes[name]
	n.life.Lock()
	defer n.life.Unlock()
	w.in(n.off)
	n.end()
}

// off is what the others see of a power cut. Holds mu.
func (n *node) off() {
	n.up, n.held, n.lease, n.suspect = false, 0, lease.Lease{}, true
	n.ballot.crash()
	n.role, n.tenure, n.running = state.Secondary, 0, plan.Stopped
}

// end clears away what ran on a node that is off. Holds life.
func (n *node) end() {
	if n.dead == nil {
		return
	}
	n.cancel()
	<-n.dead
	if n.fences != nil {
		n.fences.Close()
	}
	n.dead = nil
	n.w.in(func() { n.role, n.tenure, n.running = state.Secondary, 0, plan.Stopped })
}

func (w *world) isOn(name string) (on bool) {
	w.in(func() { on = w.nodes[name].up })
	return on
}

func (w *world) setCut(a, b string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[link(a, b)] = cut
}

func link(a, b string) string { return min(a, b) + "-" + max(a, b) }

func (w *world) isUp(name string) bool { return name == "w" || w.nodes[name].up }

// reach lists the voters a node reaches, itself first. Holds mu.
func (w *world) reach(name string) (out []string) {
	for _, v := range w.voters {
		if w.isUp(v) && w.isUp(name) && (v == name || !w.cut[link(v, name)]) {
			out = append(out, v)
		}
	}
	return out
}

func (w *world) quorum(name string) bool {
	if w.alone != "" {
		return w.alone == name && w.isUp(name)
	}
	return 2*len(w.reach(name)) > len(w.voters)
}

func (w *world) connected() bool { return w.nodes["n1"].up && w.nodes["n2"].up && !w.cut["n1-n2"] }

// session is the mirror's: a Secondary whose disk failed keeps none.
func (w *world) session() bool {
	for _, n := range w.nodes {
		if n.disk == state.Failed && n.role == state.Secondary {
			return false
		}
	}
	return w.connected()
}

func (w *world) tick() {
	w.mu.Lock()
	now := w.now()
	w.meet()
	for _, n := range w.nodes {
		w.renew(n, now)
		w.beat(n, now)
	}
	w.replicate()
	w.watch(now)
	var wake []*Controller
	for _, n := range w.nodes {
		if digest := w.digest(n, now); n.up && n.ctl != nil && digest != n.told {
			n.told = digest
			wake = append(wake, n.ctl)
		}
	}
	w.mu.Unlock()
	for _, c := range wake {
		c.Wake("world")
	}
}

func (w *world) renew(n *node, now time.Duration) {
	if !w.quorum(n.name) {
		return
	}
	n.known, n.read = w.rec, true
	if n.held == 0 || w.rec.Primary != n.name || w.rec.Tenure != n.held {
		return
	}
	given, voters := 0, w.reach(n.name)
	for _, v := range voters {
		o := w.owes[v]
		if o.to != "" && o.to != n.name && now < o.until {
			continue
		}
		w.owes[v] = owed{to: n.name, tenure: n.held, until: now + promise}
		given++
	}
	if w.alone == n.name || 2*given > len(w.voters) {
		n.lease = lease.Lease{Resource: "pg", Tenure: n.held, Until: now + leaseFor}
	}
}

func (w *world) beat(n *node, now time.Duration) {
	if w.connected() {
		n.heard, n.everHear = now, true
	}
	v := plan.Unheard
	switch {
	case !n.everHear:
	case now-n.heard < deadAfter/2:
		v = plan.Alive
	case now-n.heard < deadAfter:
		v = plan.Suspected
	default:
		v = plan.Dead
	}
	if v != n.verdict {
		n.verdict, n.since = v, now
	}
}

// replicate keeps the in-sync set: a lost copy is excluded before the Primary
// goes on, a returned one is brought in line.
func (w *world) replicate() {
	for _, n := range w.nodes {
		other := w.nodes[n.peer()]
		if n.role != state.Primary || w.rec.Primary != n.name || !w.quorum(n.name) || !n.lease.Valid(w.now()) {
			continue
		}
		switch {
		case n.disk == state.Failed: // answers errors, and asks for nobody's removal
			continue
		case !w.session() && w.rec.Has(other.name):
			w.rec.InSync = []string{n.name}
			w.rec.Token++
		case w.session() && !w.rec.Has(other.name):
			w.rec.InSync = []string{"n1", "n2"}
			w.rec.Token++
			other.disk, other.version = state.UpToDate, n.version
		}
		if n.lease.Tenure == n.tenure { // a write, answered by every copy in sync
			w.acked++
			n.version = w.acked
			if w.rec.Has(other.name) {
				other.version = w.acked
			}
		}
		if w.connected() {
			other.suspect = false
		}
	}
}

// watch states what must never happen.
func (w *world) watch(now time.Duration) {
	serving := 0
	for _, n := range w.nodes {
		if n.up && n.role == state.Primary && n.lease.Valid(now) && n.lease.Tenure == n.tenure {
			serving++
			if n.version != w.acked && (w.alone == "" || w.set.Arbitration == plan.Fencing) {
				w.wrong = append(w.wrong, fmt.Sprintf("%v: %s serves version %d, answered was %d", now, n.name, n.version, w.acked))
			}
		}
	}
	if serving > 1 {
		w.wrong = append(w.wrong, fmt.Sprintf("%v: two Primaries serve", now))
	}
	if w.rec.Token < w.lastTok {
		w.wrong = append(w.wrong, "the token fell")
	}
	w.lastTok = w.rec.Token
}

func (w *world) digest(n *node, now time.Duration) string {
	o := w.nodes[n.peer()]
	return fmt.Sprint(n.known.Token, n.read, w.quorum(n.name), n.lease.Valid(now), w.session(), n.disk, n.verdict, o.role, o.disk, o.suspect, n.suspect, n.running, w.marks, n.ballot.state)
}

func (w *world) in(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// until waits for a condition and tells how long it took.
func (w *world) until(d time.Duration, what string, cond func() bool) time.Duration {
	w.t.Helper()
	begin := w.now()
	for {
		ok := false
		w.in(func() { ok = cond() })
		if ok {
			took := w.now() - begin
			synctest.Wait() // whoever is still at it at this instant
			return took
		}
		if w.now()-begin > d {
			w.t.Fatalf("not within %v: %s\n%s", d, what, w.story())
		}
		time.Sleep(tick)
	}
}

func (w *world) serves(name string) bool {
	n := w.nodes[name]
	return n.up && n.role == state.Primary && n.running == plan.Started && w.rec.Primary == name && n.lease.Valid(w.now())
}

func (w *world) story() string {
	var b strings.Builder
	for _, name := range []string{"n1", "n2"} {
		n := w.nodes[name]
		if n.ctl == nil {
			continue
		}
		fmt.Fprintf(&b, "-- %s\n", name)
		for _, e := range n.ctl.Journal().Since(0) {
			fmt.Fprintf(&b, "%8.3f %-8s %s\n", e.At.Seconds(), e.Kind, e)
		}
	}
	return b.String()
}

func (n *node) peer() string {
	if n.name == "n1" {
		return "n2"
	}
	return "n1"
}
