package netns

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// brokenDisk is a disk that does nothing any more.
const brokenDisk = "read,write,flush,discard,write-zeroes err=io"

// throughPeer waits until a Primary whose disk has failed goes on through its
// peer.
func (p *pair) throughPeer(primary string) {
	p.t.Helper()
	p.resource(primary, "goes on through its peer", func(r *apiv1.Resource) bool {
		return serving(r) && r.DiskState == "Failed" && len(r.Peers) == 1 && r.Peers[0].Replication == "Forwarding" &&
			slices.Equal(r.InSync, []string{p.other(primary)})
	})
}

// server is the process of the record service on a node.
func (p *pair) server(node string) string {
	p.t.Helper()
	out, err := p.Run(p.ctx, node, "pgrep", "-o", "-f", "recordd serve")
	p.must(err)
	return strings.TrimSpace(out)
}

// failedDisk is a pair with a writer, the disk of whose Primary has just failed by
// a rule; the service that ran before still does.
func failedDisk(t *testing.T, rule string, tweak func(*lab.Options)) (p *pair, w *writer, primary, secondary string) {
	t.Helper()
	p = newPair(t, true, tweak)
	primary, secondary = p.settle()
	w = p.write()
	w.progress(steady)
	pid := p.server(primary)
	p.must(p.Fault(p.ctx, primary, rule))
	p.throughPeer(primary)
	if now := p.server(primary); now != pid {
		t.Errorf("the service ran as %s and runs as %s", pid, now)
	}
	return p, w, primary, secondary
}

// powerCut takes the power from a Primary and gives it back; the other goes on.
func (p *pair) powerCut(w *writer, primary string) {
	p.t.Helper()
	p.must(p.PowerOff(primary))
	p.takeover(p.other(primary))
	w.progress(steady)
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
}

// The disk of the Primary fails under a file system and a writer. Nobody
// notices: no service ends, no record is refused. A power cut of the node that
// has no copy any more is then an ordinary failover, and its disk, which works
// again afterwards with what it had, is no copy before it has been filled.
func TestDiskOfPrimaryFails(t *testing.T) {
	p, w, primary, _ := failedDisk(t, brokenDisk, nil)
	pid := p.server(primary)
	w.progress(5 * steady)
	if now := p.server(primary); now != pid {
		t.Errorf("the service ran as %s and runs as %s", pid, now)
	}
	p.powerCut(w, primary)
	w.stop()
	p.finish()
}

// The operator moves the resource off the node whose disk has failed; over a
// broken cable in between everything waits and goes on.
func TestSwitchoverOffAFailedDisk(t *testing.T) {
	p, w, primary, secondary := failedDisk(t, brokenDisk, nil)
	p.must(p.Cut(primary, "crossover"))
	p.throughPeer(primary)
	w.progress(steady)
	p.must(p.Heal(primary, "crossover"))
	p.must(p.Verb(p.ctx, primary, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: secondary}, nil))
	p.takeover(secondary)
	w.progress(steady)
	p.must(p.Stop(primary)) // the disk is changed
	p.must(p.Start(primary))
	p.rejoined(primary)
	w.stop()
	p.finish()
}

// A sector of the Primary cannot be read: it is fetched from the peer and
// written again, and the reader notices nothing.
func TestReadErrorIsMended(t *testing.T) {
	p := newPair(t, false, nil)
	primary, _ := p.settle()
	p.must(p.Fault(p.ctx, primary, "read offset=1048576 length=4096 err=io count=1"))
	device := p.takeover(primary).Volumes[0].Device
	_, err := p.Run(p.ctx, primary, "dd", "if="+device, "of=/dev/null", "bs=4096", "skip=256", "count=1", "iflag=direct", "status=none")
	p.must(err)
	r := p.resource(primary, "serves, both copies are current", func(r *apiv1.Resource) bool { return serving(r) && inSync(r) })
	p.told(primary, "written again")
	if r.Volumes[0].Device != device {
		t.Errorf("the device was %s and is %s", device, r.Volumes[0].Device)
	}
	p.finish()
}

// A disk that has failed is taken into use again under the writer, without the
// resource moving; then either node can lose its power as ever.
func TestAttachUnderAWriter(t *testing.T) {
	p, w, primary, secondary := failedDisk(t, brokenDisk, nil)
	pid := p.server(primary)
	w.progress(steady)
	p.must(p.Verb(p.ctx, primary, apiv1.VerbAttach, apiv1.AttachRequest{}, nil)) // the cable is in again: the rules go with the disk
	p.rejoined(secondary)
	w.progress(steady)
	if now := p.server(primary); now != pid {
		t.Errorf("the service ran as %s and runs as %s", pid, now)
	}
	p.must(p.PowerOff(secondary))
	w.progress(steady)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	p.powerCut(w, primary)
	w.stop()
	p.finish()
}

// The Primary is cut off, and its I/O is to fail then: it does, nobody hangs, and
// the device goes on when the links are there again.
func TestFrozenIOFails(t *testing.T) {
	p := newPair(t, false, func(o *lab.Options) { o.Settings = []string{"on_no_quorum: error"} })
	primary, secondary := p.settle()
	device := p.takeover(primary).Volumes[0].Device
	write := []string{"dd", "if=/dev/zero", "of=" + device, "bs=4096", "count=1", "oflag=direct", "conv=notrunc", "status=none"}
	p.must(p.PowerOff("gamma"))
	p.must(p.PowerOff(secondary)) // nobody is left to take over
	if _, err := p.Run(p.ctx, primary, write...); err == nil {
		t.Error("a write was answered without a quorum")
	}
	p.must(p.PowerOn("gamma"))
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	_, err := p.Run(p.ctx, primary, write...)
	p.must(err)
	p.finish()
}

// I/O that is frozen can always be released, by an operator who has only this
// node: told to fail, or with the role. Nobody is left waiting in the kernel.
func TestFrozenIOIsReleased(t *testing.T) {
	p := newPair(t, false, nil)
	primary, secondary := p.settle()
	device := p.takeover(primary).Volumes[0].Device
	write := "exec dd if=/dev/zero of=" + device + " bs=4096 count=1 oflag=direct conv=notrunc status=none"
	p.must(p.PowerOff("gamma"))
	p.must(p.PowerOff(secondary))
	h := p.hold(primary, write, "dd")
	p.resource(primary, "is frozen", func(r *apiv1.Resource) bool { return r.Frozen && r.Settings.OnNoQuorum == "suspend" })
	p.run(primary, "hactl", "set", p.Resource(), "on_no_quorum=error")
	p.released(h)
	p.resource(primary, "fails its I/O", func(r *apiv1.Resource) bool { return r.Settings.OnNoQuorum == "error" })
	p.run(primary, "hactl", "set", p.Resource(), "on_no_quorum=suspend")
	h = p.hold(primary, write, "dd")
	p.run(primary, "hactl", "demote", p.Resource(), "--force")
	p.released(h)
	p.resource(primary, "is Secondary", func(r *apiv1.Resource) bool { return r.Role == "Secondary" && r.Volumes[0].Device == "" })
	p.must(p.PowerOn("gamma"))
	p.must(p.PowerOn(secondary))
	p.eventually("it is Primary again", func() error {
		return p.Verb(p.ctx, primary, apiv1.VerbPromote, apiv1.PromoteRequest{}, nil)
	})
	p.rejoined(secondary)
	p.finish()
}

// released waits until a process has got its answer, an error, and has ended.
func (p *pair) released(h *holder) {
	p.t.Helper()
	p.eventually("the process that waits is released", func() error {
		if h.alive() {
			return errors.New("it still waits")
		}
		return nil
	})
	if h.cmd.ProcessState.Success() {
		p.t.Error("a write was answered without a quorum")
	}
}

// The same with a file system and a service above it, which hang in that I/O: all
// of it is gone at once, and no process is left in the kernel.
func TestFrozenFilesystemIsReleased(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff("gamma"))
	p.must(p.PowerOff(secondary))
	p.resource(primary, "is frozen", func(r *apiv1.Resource) bool { return r.Frozen })
	w.stop()
	began := time.Now()
	p.run(primary, "hactl", "demote", p.Resource(), "--force")
	p.say("released in %v", time.Since(began).Round(time.Millisecond))
	p.resource(primary, "is Secondary", func(r *apiv1.Resource) bool { return r.Role == "Secondary" && r.Volumes[0].Device == "" })
	left := p.run(primary, "/bin/sh", "-c", "grep -l '^State:.D' /proc/[0-9]*/status; grep /srv/pg /proc/mounts; true")
	if strings.TrimSpace(left) != "" {
		t.Errorf("left: %s", left)
	}
	p.must(p.PowerOn("gamma"))
	p.must(p.PowerOn(secondary))
	p.resource(primary, "stays down", func(r *apiv1.Resource) bool { return r.Primary == "" && r.Role == "Secondary" })
	p.must(p.Verb(p.ctx, primary, apiv1.VerbPromote, apiv1.PromoteRequest{}, nil))
	p.rejoined(secondary)
	p.finish()
}
