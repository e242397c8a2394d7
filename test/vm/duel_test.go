package vm

import (
	"context"
	"net/http"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/failover"
	"hapair/test/play"
	"hapair/test/script"
)

// inFlight is how long after a cut, or a pause, an answer may come that was given before;
// and how long at most a pill is on the disk before its reader is down.
const inFlight = 5 * time.Second

// tellAll tells stories of two that lose each other, one after the other, under a client
// that writes, and looks for all that it was answered in the end.
func tellAll(ctx context.Context, t *testing.T, l *Lab, armed func(*apiv1.Status) bool, stories []story) {
	w, err := l.Write()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	for _, s := range stories {
		if !t.Run(s.name, func(t *testing.T) { s.tell(newDuel(ctx, t, l, w, armed)) }) {
			return // what it left is not what the next one expects
		}
	}
	primary := servesOn(ctx, t, l)
	w.End()
	if err := l.Check(ctx, primary, w.Acks(0)); err != nil {
		t.Error(err)
	}
}

// story is one of tellAll.
type story struct {
	name string
	tell func(*duel)
}

// duel is one story: who is Primary when it begins, and since when they have lost each
// other.
type duel struct {
	*Lab
	t                  *testing.T
	ctx                context.Context
	w                  play.Writer
	primary, secondary string
	began              time.Time
	past               map[string]int // fences that each node had asked for when it began
}

// newDuel waits until all is well, and stays so for some answers, and each node is armed:
// it could fence the other.
func newDuel(ctx context.Context, t *testing.T, l *Lab, w play.Writer, armed func(*apiv1.Status) bool) *duel {
	t.Helper()
	d := &duel{Lab: l, t: t, ctx: ctx, w: w, past: map[string]int{}}
	token := func(node string) (uint64, bool) {
		st := l.status(ctx, t, node)
		r := st.Resource(resource)
		if r == nil || len(r.Peers) != 1 {
			return 0, false
		}
		return r.Token, len(r.InSync) == 2 && r.Peers[0].Replication == "Established" && st.Quorum.Voters == 2
	}
	for end := time.Now().Add(shortLimit); ; {
		d.primary = servesOn(ctx, t, l)
		d.secondary = script.Peer(d.primary)
		was, _ := token(d.primary)
		d.until(d.primary, "can fence, and be fenced", armed)
		d.until(d.secondary, "can fence, and be fenced", armed)
		answered(ctx, t, w, 10)
		one, well := token(d.primary)
		if two, alike := token(d.secondary); well && alike && one == was && two == was {
			for _, node := range l.nodes() {
				d.past[node] = len(l.status(ctx, t, node).Fences)
			}
			d.began = time.Now()
			return d
		}
		if time.Now().After(end) {
			t.Fatal("the two do not stay in sync: is this machine too busy?")
		}
	}
}

// until waits until a node's status is as wanted.
func (d *duel) until(node, what string, ok func(*apiv1.Status) bool) *apiv1.Status {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.ctx, shortLimit)
	defer cancel()
	for {
		s := d.status(ctx, d.t, node)
		if ok(s) {
			return s
		}
		select {
		case <-ctx.Done():
			d.t.Fatalf("%s: not so: %s; %+v", node, what, s)
		case <-time.After(time.Second):
		}
	}
}

// cables pulls all cables out of a machine, or plugs them in.
func (d *duel) cables(verb script.Verb, node string) {
	d.t.Helper()
	for _, path := range []string{script.LAN, script.Crossover} {
		if err := d.Do(script.Action{Verb: verb, Node: node, Path: path}); err != nil {
			d.t.Fatal(err)
		}
	}
}

// firstAnswer waits for a record that was answered after the two had lost each other.
func (d *duel) firstAnswer() time.Time {
	d.t.Helper()
	for {
		all := d.w.Acks(0)
		for _, a := range all {
			if a.At.Sub(d.began) > inFlight {
				return a.At
			}
		}
		answered(d.ctx, d.t, d.w, 1)
	}
}

// promotedAfterFence wants the story of the Secondary to have its promotion after the
// fence.
func (d *duel) promotedAfterFence() {
	d.t.Helper()
	var tl apiv1.Timeline
	if err := d.Call(d.ctx, d.secondary, http.MethodGet, apiv1.PathTimeline, nil, &tl); err != nil {
		d.t.Fatal(err)
	}
	last := func(is func(f map[string]string) bool) (at int) {
		at = -1
		for i, e := range tl.Entries {
			if e.Node == d.secondary && is(e.Fields) {
				at = i
			}
		}
		return at
	}
	fenced := last(func(f map[string]string) bool { return f["outcome"] == apiv1.FenceConfirmed && f["node"] == d.primary })
	promoted := last(func(f map[string]string) bool { return f["entry"] == string(failover.EntryPromoted) })
	if fenced < 0 || promoted < fenced {
		d.t.Errorf("%s: the fence is in entry %d, the promotion in %d", d.secondary, fenced, promoted)
	}
}

// confirmed waits until one node has fenced the other, and returns how.
func (d *duel) confirmed(by, node string) apiv1.Fence {
	d.t.Helper()
	s := d.until(by, "has fenced "+node, func(s *apiv1.Status) bool {
		return len(s.Fences) > d.past[by] && s.Fences[len(s.Fences)-1].Outcome == apiv1.FenceConfirmed
	})
	f := s.Fences[len(s.Fences)-1]
	if f.Node != node {
		d.t.Errorf("the fence: %+v", f)
	}
	return f
}

// rejoins waits until a machine that was switched on again is Secondary, and filled.
func (d *duel) rejoins(node, primary string) {
	d.t.Helper()
	if now := servesOn(d.ctx, d.t, d.Lab); now != primary {
		d.t.Fatalf("%s is Primary, not %s", now, primary)
	}
	d.until(node, "is Secondary and UpToDate", func(s *apiv1.Status) bool {
		r := s.Resource(resource)
		return r != nil && r.Role == "Secondary" && r.DiskState == "UpToDate" && len(r.InSync) == 2
	})
}
