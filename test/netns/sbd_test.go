package netns

import (
	"os"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// byPills is a pair that fences by poison pills on a shared disk.
func byPills(o *lab.Options) {
	byFencing(o)
	o.Watchdog, o.SBD = bites, true
}

// ready waits until each node could fence the other.
func (p *pair) ready() {
	p.t.Helper()
	for _, name := range p.Data() {
		p.must2(p.Await(p.ctx, name, patience, func(s *apiv1.Status) bool {
			return len(s.Fencing) == 1 && s.Fencing[0].Ready && s.Watchdog != nil && s.Watchdog.DiskBecause == ""
		}))
	}
}

// The Primary loses its power: the Secondary leaves it a pill, waits for as long as its
// watchdog could last, and goes on alone. The old Primary boots, takes the pill away
// and is filled.
func TestSBDPrimaryDies(t *testing.T) {
	long(t)
	p := newPair(t, true, byPills)
	primary, secondary := p.settle()
	p.ready()
	w := p.write()
	p.primaryDies(w, primary, secondary)
	p.ready()
	w.stop()
	p.finish()
}

// The Secondary loses its power: the Primary waits for its watchdog, and goes on.
func TestSBDSecondaryDies(t *testing.T) {
	long(t)
	p := newPair(t, true, byPills)
	primary, secondary := p.settle()
	p.ready()
	w := p.write()
	p.secondaryDies(w, primary, secondary)
	w.stop()
	p.unmoved(primary)
	p.finish()
}

// The agent of the Primary stands still, and cannot read the pill: its watchdog ends
// the machine while the Secondary waits.
func TestSBDPrimaryStandsStill(t *testing.T) {
	long(t)
	p := newPair(t, true, byPills)
	primary, secondary := p.settle()
	p.ready()
	w := p.write()
	w.progress(steady)
	p.must(p.Pause(primary))
	paused := time.Now()
	if after := p.goesOff(primary).Sub(paused); after > bites+10*time.Second {
		t.Errorf("%s was reset after %s", primary, after)
	}
	p.takeover(secondary)
	w.progress(steady)
	p.onAgain(primary)
	w.stop()
	p.finish()
}

// All links are cut, and both live: the Secondary reads the Primary's pill and goes
// down, the Primary goes on, and reads none.
func TestSBDPartition(t *testing.T) {
	long(t)
	p := newPair(t, false, byPills)
	primary, secondary := p.settle()
	p.ready()
	p.fencesOverACut(primary, secondary)
}

// reads waits until a node reads the disk, or does not.
func (p *pair) reads(node string, well bool) {
	p.t.Helper()
	p.must2(p.Await(p.ctx, node, patience, func(s *apiv1.Status) bool { return s.Watchdog != nil && (s.Watchdog.DiskBecause == "") == well }))
}

// The disk is lost to both, which costs nobody anything while they hear each other, and
// is found again. Lost once more, and the links with it, nobody can fence, and both go
// down: each might have a pill.
func TestSBDDiskIsLost(t *testing.T) {
	long(t)
	p := newPair(t, true, byPills)
	primary, secondary := p.settle()
	p.ready()
	content, err := os.ReadFile(p.SBDDisk())
	p.must(err)
	w := p.write()
	w.progress(steady)
	p.must(os.Truncate(p.SBDDisk(), 0))
	p.reads(primary, false)
	p.reads(secondary, false)
	time.Sleep(3 * bites) // what must not happen has no event
	w.progress(steady)
	p.must(os.WriteFile(p.SBDDisk(), content, 0o600))
	p.reads(primary, true)
	p.reads(secondary, true)
	p.ready()
	p.unmoved(primary)
	w.progress(steady)
	w.stop()
	p.must(os.Truncate(p.SBDDisk(), 0))
	p.reads(primary, false)
	p.reads(secondary, false)
	p.isolate(secondary)
	p.goesOff(secondary)
	p.goesOff(primary)
	p.must(os.WriteFile(p.SBDDisk(), content, 0o600))
	p.join(secondary)
	p.must(p.PowerOn(primary))
	p.must(p.PowerOn(secondary))
	p.settle()
	p.ready()
	p.finish()
}

// A stop in order disarms and says so on the disk: nobody relies on it then.
func TestSBDStopsInOrder(t *testing.T) {
	long(t)
	p := newPair(t, true, byPills)
	primary, secondary := p.settle()
	p.ready()
	p.must(p.Stop(secondary))
	out, err := p.Run(p.ctx, primary, "hactl", "dump-sbd")
	if err != nil || !strings.Contains(out, secondary+": its watchdog is not armed") || !strings.Contains(out, primary+": its watchdog is armed, with 3s") {
		t.Errorf("%v: %s", err, out)
	}
	time.Sleep(2 * bites) // what must not happen has no event
	if p.Look(p.ctx, secondary).Power != "on" {
		t.Errorf("%s was reset after a stop in order", secondary)
	}
	p.must(p.Start(secondary))
	p.rejoined(secondary)
	p.ready()
	p.finish()
}
