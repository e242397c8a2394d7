package netns

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"hapair/agent/apiv1"
)

// rot changes a sector of a copy behind the agent's back.
func (p *pair) rot(node string, offset int64) {
	p.t.Helper()
	f, err := os.OpenFile(p.Image(node), os.O_RDWR, 0)
	p.must(err)
	_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 512), offset)
	p.must(err)
	p.must(f.Sync())
	p.must(f.Close())
}

// hactl runs a command that has to succeed.
func (p *pair) hactl(node string, args ...string) {
	p.t.Helper()
	p.run(node, append([]string{"hactl"}, args...)...)
}

// verified waits for the end of a verify.
func (p *pair) verified(node string) *apiv1.Resource {
	p.t.Helper()
	return p.resource(node, "has compared the copies", func(r *apiv1.Resource) bool { return r.Verify.State == apiv1.VerifyDone })
}

// A verify beside a writer raises no alarm and goes on through a restart of the
// other node; it finds the one block that rotted, and a repair makes the copies
// equal.
func TestVerify(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	res := p.Resource()
	p.refused(secondary, "a verify is led by the Primary", "verify", res)
	p.refused(primary, "has no volume 7", "verify", res, "--volume", "7")

	p.hactl(primary, "verify", res, "--rate", "8MiB/s")
	p.resource(primary, "compares", func(r *apiv1.Resource) bool { return r.Verify.DoneBytes > 0 })
	p.must(p.Kill(secondary))
	before := p.resource(primary, "waits for the other", func(r *apiv1.Resource) bool { return r.Verify.Waits != "" }).Verify
	p.must(p.Start(secondary))
	r := p.verified(primary)
	if v := r.Verify; v.DifferingBytes != 0 || v.DoneBytes != v.TotalBytes || v.DoneBytes < before.DoneBytes {
		t.Fatalf("a false alarm: %+v", v)
	}
	for _, node := range p.Data() {
		p.resource(node, "knows that all was equal", func(r *apiv1.Resource) bool { return r.Volumes[0].Proven.Oldest != nil })
	}

	at := r.Volumes[0].SizeBytes - 2*mib
	p.rot(secondary, at+512)
	p.hactl(primary, "verify", res)
	r = p.verified(primary)
	if v := r.Verify; v.DifferingBytes != blockBytes || len(v.Found) != 1 || v.Found[0].Offset != at || v.Found[0].Length != blockBytes || v.Found[0].Kind != apiv1.RangeDiffers {
		t.Fatalf("found %+v", v)
	}
	if r.LastProblem == nil || !inSync(r) || r.Peers[0].DirtyBytes != blockBytes {
		t.Fatalf("a difference that nobody is told of: %+v, %+v", r.LastProblem, r.Peers[0])
	}
	out := p.run(primary, "hactl", "status") + p.run(primary, "hactl", "explain", res)
	for _, want := range []string{"COPIES DIFFER", "hactl verify " + res + " --repair"} {
		if !strings.Contains(out, want) {
			t.Errorf("hactl does not say %q:\n%s", want, out)
		}
	}
	p.hactl(primary, "verify", res, "--repair")
	r = p.verified(primary)
	if v := r.Verify; v.DifferingBytes != blockBytes || v.RepairedBytes != blockBytes || r.Peers[0].DirtyBytes != 0 {
		t.Fatalf("not repaired: %+v", v)
	}
	p.resource(primary, "has no problem any more", func(r *apiv1.Resource) bool { return r.LastProblem == nil })
	w.stop()
	p.finish()
}

// What one node has verified and its successor has not is not lost: a verify
// that waits for its node to be Primary again is no obstacle for another.
func TestVerifyAndSwitchover(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	res := p.Resource()
	p.rot(primary, p.look(primary).Volumes[0].SizeBytes-2*mib)
	p.hactl(primary, "verify", res, "--rate", "1MiB/s")
	p.resource(primary, "compares", func(r *apiv1.Resource) bool { return r.Verify.DoneBytes > 0 })
	p.hactl(primary, "switchover", res)
	p.takeover(secondary)
	p.resource(primary, "waits", func(r *apiv1.Resource) bool { return r.Verify.State == apiv1.VerifyRunning && r.Verify.Waits != "" })
	p.hactl(secondary, "verify", res, "--repair") // from the good copy
	if v := p.verified(secondary).Verify; v.RepairedBytes != blockBytes {
		t.Fatalf("not repaired: %+v", v)
	}
	p.hactl(primary, "verify", res, "--stop")
	w.progress(steady)
	w.stop()
	p.finish()
}

// Blocks that cannot be read, one on each node: a verify finds both, and a repair
// writes them anew, each from the other copy.
func TestVerifyMendsWhatCannotBeRead(t *testing.T) {
	p := newPair(t, false, nil)
	primary, secondary := p.settle()
	res := p.Resource()
	p.must(p.Fault(p.ctx, primary, "read offset=1048576 length=4096 err=io"))
	p.must(p.Fault(p.ctx, secondary, "read offset=2097152 length=4096 err=io"))
	p.hactl(primary, "verify", res)
	r := p.verified(primary)
	if v := r.Verify; v.UnreadableBytes != 2*blockBytes || v.RepairedBytes != 0 || len(v.Found) != 2 {
		t.Fatalf("found %+v", v)
	}
	// The lab's disks cannot be mended by a write; these rules let only so many
	// reads fail as a verify needs to be sure: a chunk halved seven times, then the
	// block under its lock.
	for _, node := range p.Data() {
		p.must(p.Fault(p.ctx, node, "clear"))
	}
	p.must(p.Fault(p.ctx, primary, "read offset=1048576 length=4096 err=io count=8"))
	p.must(p.Fault(p.ctx, secondary, "read offset=2097152 length=4096 err=io count=8"))
	p.hactl(primary, "verify", res, "--repair")
	r = p.verified(primary)
	v := r.Verify
	if v.UnreadableBytes != 2*blockBytes || v.RepairedBytes != 2*blockBytes || r.Peers[0].DirtyBytes != 0 || !inSync(r) {
		t.Fatalf("repaired %+v, %+v", v, r.Peers[0])
	}
	for _, f := range v.Found {
		if !f.Repaired {
			t.Errorf("not repaired: %+v", f)
		}
	}
	p.told(primary, "fetched from "+secondary+" and written again")
	p.resource(primary, "has no problem any more", func(r *apiv1.Resource) bool { return r.LastProblem == nil })
	p.finish()
}
