package vm

import (
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/script"
)

// certain is how long after a pill is on the disk nobody runs any more whom it is for, by
// the time-out of the watchdog: docs/fencing.md.
const certain = bites * 7 / 2

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
	tellAll(ctx, t, l, readsPills, []story{{"the Primary is cut off", (*duel).primaryIsCutOff}, {"the Secondary is cut off", (*duel).secondaryIsCutOff}, {"the Primary stands still", (*duel).primaryStandsStill}})
}

// readsPills reports whether a node could fence the other one, and reads its own mail.
func readsPills(s *apiv1.Status) bool {
	return len(s.Fencing) == 1 && s.Fencing[0].Ready && s.Watchdog != nil && s.Watchdog.Disk == sharedDevice && s.Watchdog.DiskBecause == ""
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
	f := d.confirmed(by, node)
	if f.Device != "sbd "+sharedDevice || f.TookMS < certain.Milliseconds() {
		d.t.Errorf("the fence: %+v", f)
	}
	d.Say("%s: confirmed after %d ms, %s; it answers %s after it lost %s", by, f.TookMS, f.Reason, after.Sub(d.began).Round(100*time.Millisecond), node)
	if pill := d.pill(by); !strings.Contains(pill, "waits for it, from "+by) {
		d.t.Errorf("on the disk: %q", pill)
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

// returns switches a machine on that was reset: it takes its pill away, and is filled.
func (d *duel) returns(node, primary string) {
	d.t.Helper()
	d.must(d.t, script.PowerOff, node) // QEMU has ended: what is left is to be cleared away
	d.cables(script.Heal, node)
	d.must(d.t, script.PowerOn, node)
	d.rejoins(node, primary)
	if pill := d.pill(primary); pill != "" {
		d.t.Errorf("%s has booted, and there is still %q", node, pill)
	}
	answered(d.ctx, d.t, d.w, 10)
}
