package vm

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/failover"
	"hapair/test/play"
	"hapair/test/script"
)

// certain is how long after a pill is on the disk nobody runs any more whom it is for, by
// the time-out of the watchdog: docs/fencing.md.
const certain = bites * 7 / 2

// inFlight is how long after a cut, or a pause, an answer may come that was given before;
// and how long at most a pill is on the disk before its reader is down.
const inFlight = 5 * time.Second

// byPill is what the console of a machine says that resets itself: the watchdog would say
// something else.
const byPill = "sysrq: Resetting"

// Two machines share a disk, and have kernels of their own that are reset. Whoever is
// lost is told so by a pill, and resets itself; or cannot read it, and its watchdog does.
// The other one goes on when that is certain, and not before. No record is lost, and the
// machine that was reset comes back into line.
func TestPoisonPill(t *testing.T) {
	o := options(t)
	o.Watchdog, o.Pills = bites, true
	ctx, l := up(t, o)
	w, err := l.Write()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	for _, story := range []struct {
		name string
		tell func(*duel)
	}{{"the Primary is cut off", (*duel).primaryIsCutOff}, {"the Secondary is cut off", (*duel).secondaryIsCutOff}, {"the Primary stands still", (*duel).primaryStandsStill}} {
		if !t.Run(story.name, func(t *testing.T) { story.tell(newDuel(ctx, t, l, w)) }) {
			return // what it left is not what the next one expects
		}
	}
	primary := servesOn(ctx, t, l)
	w.End()
	if err := l.Check(ctx, primary, w.Acks(0)); err != nil {
		t.Error(err)
	}
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
}

// newDuel waits until all is well, and stays so for some answers, and each node could
// fence the other.
func newDuel(ctx context.Context, t *testing.T, l *Lab, w play.Writer) *duel {
	t.Helper()
	d := &duel{Lab: l, t: t, ctx: ctx, w: w}
	token := func(node string) (uint64, bool) {
		r := l.status(ctx, t, node).Resource(resource)
		if r == nil || len(r.Peers) != 1 {
			return 0, false
		}
		return r.Token, len(r.InSync) == 2 && r.Peers[0].Replication == "Established"
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
			d.began = time.Now()
			return d
		}
		if time.Now().After(end) {
			t.Fatal("the two do not stay in sync: is this machine too busy?")
		}
	}
}

// armed reports whether a node could fence the other one, and reads its own mail.
func armed(s *apiv1.Status) bool {
	return len(s.Fencing) == 1 && s.Fencing[0].Ready && s.Watchdog != nil && s.Watchdog.Disk == sharedDevice && s.Watchdog.DiskBecause == ""
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

// The Primary lives, with nobody to hear, and its way to the shared disk takes no writes:
// else its own pill would be there first. It reads that of the Secondary, which then takes over.
func (d *duel) primaryIsCutOff() {
	if err := d.machines[d.primary].disks[3].tell("write,write-zeroes,discard err=io"); err != nil {
		d.t.Fatal(err)
	}
	d.cables(script.Cut, d.primary)
	gone := d.ends(d.ctx, d.t, d.primary, byPill)
	d.Say("%s resets itself %s after it was cut off", d.primary, gone.Sub(d.began).Round(100*time.Millisecond))
	d.takesOver(gone)
}

// The Secondary lives, with nobody to hear: the Primary's pill is there before it would
// write one. The Primary goes on alone.
func (d *duel) secondaryIsCutOff() {
	d.cables(script.Cut, d.secondary)
	gone := d.ends(d.ctx, d.t, d.secondary, byPill)
	d.Say("%s resets itself %s after it was cut off", d.secondary, gone.Sub(d.began).Round(100*time.Millisecond))
	d.fenced(d.primary, d.secondary, gone)
	d.returns(d.secondary, d.primary)
}

// The agent of the Primary stands still, and cannot read: its watchdog ends the machine
// while the Secondary waits, for as long as that may take, and takes over.
func (d *duel) primaryStandsStill() {
	d.must(d.t, script.Pause, d.primary)
	d.takesOver(d.resets(d.ctx, d.t, d.primary, d.began))
}

// takesOver wants the Secondary to become Primary after the fence, and the old one to
// come back.
func (d *duel) takesOver(gone time.Time) {
	d.t.Helper()
	d.fenced(d.secondary, d.primary, gone)
	d.promotedAfterFence()
	d.returns(d.primary, d.secondary)
}

// fenced wants one node to have left the other a pill, and to answer again when that one
// was certainly off, and not before.
func (d *duel) fenced(by, node string, gone time.Time) {
	d.t.Helper()
	after := d.firstAnswer()
	if wait := after.Sub(gone); wait < certain-inFlight { // it was reset by the pill shortly before, or had been before there was one
		d.t.Errorf("%s answers %s after it lost %s, and %s after that one was reset; a pill is certain after %s", by, after.Sub(d.began), node, wait, certain)
	}
	s := d.until(by, "has fenced "+node, func(s *apiv1.Status) bool {
		return len(s.Fences) > 0 && s.Fences[len(s.Fences)-1].Outcome == apiv1.FenceConfirmed
	})
	f := s.Fences[len(s.Fences)-1]
	if f.Node != node || f.Device != "sbd "+sharedDevice || f.TookMS < certain.Milliseconds() {
		d.t.Errorf("the fence: %+v", f)
	}
	d.Say("%s: confirmed after %d ms, %s; it answers %s after it lost %s", by, f.TookMS, f.Reason, after.Sub(d.began).Round(100*time.Millisecond), node)
	if pill := d.pill(by); !strings.Contains(pill, "waits for it, from "+by) {
		d.t.Errorf("on the disk: %q", pill)
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

// pill is the line of hactl dump-sbd that tells of one, "" where there is none.
func (d *duel) pill(node string) string {
	d.t.Helper()
	out, err := d.machines[node].run(d.ctx, "/bin/hactl", "dump-sbd")
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "a pill ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
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

// returns switches a machine on that was reset: it takes its pill away, and is filled.
func (d *duel) returns(node, primary string) {
	d.t.Helper()
	d.must(d.t, script.PowerOff, node) // QEMU has ended: what is left is to be cleared away
	d.cables(script.Heal, node)
	d.must(d.t, script.PowerOn, node)
	if now := servesOn(d.ctx, d.t, d.Lab); now != primary {
		d.t.Fatalf("%s is Primary, not %s", now, primary)
	}
	d.until(node, "is Secondary and UpToDate", func(s *apiv1.Status) bool {
		r := s.Resource(resource)
		return r != nil && r.Role == "Secondary" && r.DiskState == "UpToDate" && len(r.InSync) == 2
	})
	if pill := d.pill(primary); pill != "" {
		d.t.Errorf("%s has booted, and there is still %q", node, pill)
	}
	answered(d.ctx, d.t, d.w, 10)
}
