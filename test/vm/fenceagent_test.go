package vm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/script"
)

// Two machines switch each other off by a fence agent that reaches their power over the
// control card. Who has lost its power is confirmed to be off; of two that live and have
// lost each other the Primary has the other one switched off; and while the outlets refuse
// the password, or answer nothing, nobody is promoted and what is written waits. No record
// is lost, and the machine that was off is switched on by the same agent and comes back
// into line.
func TestFenceAgentBetweenMachines(t *testing.T) {
	o := options(t)
	o.Outlets = true
	ctx, l := up(t, o)
	tellAll(ctx, t, l, switches, []story{{"the Primary loses its power", (*duel).primaryLosesPower}, {"both live, all cables cut", (*duel).bothLive},
		{"both live, all cables cut, the outlets refuse", (*duel).bothLiveAndRefused},
		{"the outlets refuse and are silent, the Secondary is off", (*duel).secondaryIsNotSwitched}, {"the outlets refuse, the Primary is off", (*duel).primaryIsNotSwitched}})
	for _, node := range l.nodes() {
		if log, err := l.machines[node].run(ctx, "/bin/cat", "/run/agent.log"); err != nil || strings.Contains(log, l.outlets.password) {
			t.Errorf("the log of %s shows the password, or cannot be read: %v", node, err)
		}
	}
}

// switches reports whether a node could switch the other one off.
func switches(s *apiv1.Status) bool { return len(s.Fencing) == 1 && s.Fencing[0].Ready }

// The Primary is off: that is confirmed, and the Secondary takes over.
func (d *duel) primaryLosesPower() {
	d.says(d.secondary, "status", d.primary, "Status: ON", 0)
	d.began = time.Now() // that took some
	d.must(d.t, script.PowerOff, d.primary)
	d.switched(d.secondary, d.primary)
	d.promotedAfterFence()
	if off := d.outlets.switchedOff(d.began); len(off) > 0 { // it was off already
		d.t.Errorf("switched off: %v", off)
	}
	d.isSwitchedOn(d.primary, d.secondary)
}

// Both live, and hear each other no more: the Primary is first, and the Secondary is off
// before it would fence. The Primary goes on.
func (d *duel) bothLive() {
	d.cables(script.Cut, d.secondary)
	gone := d.goesOff(d.secondary)
	d.Say("%s is off %s after all cables were cut", d.secondary, gone.Sub(d.began).Round(100*time.Millisecond))
	d.switched(d.primary, d.secondary)
	if off := d.outlets.switchedOff(d.began); len(off) != 1 || off[0] != d.secondary {
		d.t.Errorf("switched off: %v; want %s", off, d.secondary)
	}
	if d.machines[d.secondary].isOn() || d.Call(d.ctx, d.secondary, "GET", apiv1.PathStatus, nil, nil) == nil {
		d.t.Errorf("%s answers", d.secondary)
	}
	d.cables(script.Heal, d.secondary)
	d.isSwitchedOn(d.secondary, d.primary)
}

// Both live, hear each other no more, and neither can have the other switched off: what is
// written to the Primary waits, and the Secondary is not promoted. When they meet again it
// goes on, and nobody is switched off for what was asked before.
func (d *duel) bothLiveAndRefused() {
	d.outlets.deny()
	d.cables(script.Cut, d.secondary)
	d.fails(d.primary, apiv1.FenceRefused, "login denied", 1)
	d.fails(d.secondary, apiv1.FenceRefused, "login denied", 1)
	d.waits(d.primary, "Primary")
	d.waits(d.secondary, "Secondary")
	d.cables(script.Heal, d.secondary)
	d.firstAnswer()
	d.rejoins(d.secondary, d.primary)
	d.outlets.answer()
	for _, node := range []string{d.primary, d.secondary} {
		d.until(node, "can fence again, and does not", func(s *apiv1.Status) bool { return switches(s) && s.Fencing[0].UnderWay == nil })
	}
	answered(d.ctx, d.t, d.w, 10)
	if off := d.outlets.switchedOff(d.began); len(off) > 0 {
		d.t.Errorf("switched off: %v", off)
	}
}

// The Secondary is off, but that cannot be asked: what is written to the Primary waits.
func (d *duel) secondaryIsNotSwitched() {
	d.outlets.deny()
	d.must(d.t, script.PowerOff, d.secondary)
	d.fails(d.primary, apiv1.FenceRefused, "login denied", 2)
	d.outlets.hang()
	d.fails(d.primary, apiv1.FenceUnknown, "timed out", 1)
	d.waits(d.primary, "Primary")
	d.outlets.answer()
	d.switched(d.primary, d.secondary)
	d.isSwitchedOn(d.secondary, d.primary)
}

// The Primary is off, but that cannot be asked: the Secondary is not promoted.
func (d *duel) primaryIsNotSwitched() {
	d.outlets.deny()
	d.must(d.t, script.PowerOff, d.primary)
	d.fails(d.secondary, apiv1.FenceRefused, "login denied", 2)
	d.waits(d.secondary, "Secondary")
	d.outlets.answer()
	d.switched(d.secondary, d.primary)
	d.promotedAfterFence()
	d.isSwitchedOn(d.primary, d.secondary)
}

// goesOff waits until a machine is switched off, and returns when that was.
func (d *duel) goesOff(node string) time.Time {
	d.t.Helper()
	ended := d.machines[node].ended
	select {
	case err := <-ended:
		ended <- err
	case <-time.After(shortLimit):
		d.t.Fatalf("%s was not switched off", node)
	case <-d.ctx.Done():
		d.t.Fatal(d.ctx.Err())
	}
	return time.Now()
}

// switched wants one node to go on after the outlet of the other said that it is off, and
// not before.
func (d *duel) switched(by, node string) {
	d.t.Helper()
	after := d.firstAnswer()
	if off := d.outlets.lastOff(node); off.Before(d.began) || after.Before(off) {
		d.t.Errorf("%s answers at %s, the outlet of %s said at %s that it is off", by, after, node, off)
	}
	f := d.confirmed(by, node)
	if want := "fence_halab " + outletsHost + " " + node; f.Device != want {
		d.t.Errorf("the fence is by %q, not %q", f.Device, want)
	}
	d.Say("%s: confirmed after %d ms, %s; it answers %s after it lost %s", by, f.TookMS, f.Reason, after.Sub(d.began).Round(100*time.Millisecond), node)
}

// fails waits until so many fences that a node asked for in this story have ended like
// that, for that reason.
func (d *duel) fails(by, outcome, why string, times int) {
	d.t.Helper()
	d.until(by, fmt.Sprintf("has %d fences that are %s: %s", times, outcome, why), func(s *apiv1.Status) bool {
		n := 0
		for _, f := range s.Fences[min(d.past[by], len(s.Fences)):] {
			if f.Outcome == apiv1.FenceConfirmed {
				d.t.Fatalf("%s takes %s for off: %s", by, f.Node, f.Reason)
			}
			if f.Outcome == outcome && strings.Contains(f.Reason, why) {
				n++
			}
		}
		return n >= times
	})
	d.Say("%s: %d fences are %s: %s", by, times, outcome, why)
}

// waits wants a node to be what it was, to let nothing be written, and to have answered
// nothing since the two lost each other.
func (d *duel) waits(node, role string) {
	d.t.Helper()
	r := d.status(d.ctx, d.t, node).Resource(resource)
	if r == nil || r.Role != role || role == "Primary" && !r.Frozen {
		d.t.Errorf("%s: want a %s that lets nothing be written: %+v", node, role, r)
	}
	for _, a := range d.w.Acks(0) {
		if a.At.Sub(d.began) > inFlight {
			d.t.Errorf("record %d is answered %s after the two lost each other", a.N, a.At.Sub(d.began))
		}
	}
	if off := d.outlets.switchedOff(d.began); len(off) > 0 {
		d.t.Errorf("switched off: %v", off)
	}
}

// isSwitchedOn has one node switch the other one on, which comes back into line.
func (d *duel) isSwitchedOn(node, primary string) {
	d.t.Helper()
	d.says(primary, "status", node, "Status: OFF", 2)
	d.says(primary, "on", node, "", 0)
	d.says(primary, "status", node, "Status: ON", 0)
	d.rejoins(node, primary)
	answered(d.ctx, d.t, d.w, 10)
}

// says has a node ask the fence agent about the other one, as a program there would. The
// password goes from the file to it. A boot takes its time.
func (d *duel) says(from, action, plug, want string, code int) {
	d.t.Helper()
	out, err := d.machines[from].run(d.ctx, "/bin/sh", "-c", fmt.Sprintf(`printf 'action=%s\nplug=%s\nip=%s\nipport=%s\npower_timeout=%.0f\npassword=%%s\n' "$(cat %s)" | %s; echo "ended $?"`,
		action, plug, outletsHost, d.outlets.port, bootTimeout.Seconds(), outletsFile, fenceProgram))
	if want != "" {
		want += "\n"
	}
	if want += fmt.Sprintf("ended %d", code); err != nil || strings.TrimSpace(out) != want {
		d.t.Fatalf("%s asks for %s of %s: %q, %v; want %q", from, action, plug, out, err, want)
	}
}
