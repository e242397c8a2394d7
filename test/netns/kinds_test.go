package netns

import (
	"os"
	"strconv"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// Metadata at the end of the disk, instead of beside it.
func TestInternalMetadata(t *testing.T) {
	p := newPair(t, true, func(o *lab.Options) { o.Internal = true })
	primary, survivor := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(primary))
	p.takeover(survivor)
	w.progress(steady)
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
	w.stop()
	p.finish()
}

// The front end that exports the device by NBD, with foreign programs as its
// clients: what they wrote and flushed is on the survivor.
func TestExport(t *testing.T) {
	long(t)
	p := newPair(t, false, func(o *lab.Options) { o.Frontend = "export" })
	primary, survivor := p.settle()
	for _, tool := range []string{"qemu-io", "nbdcopy", "nbdinfo"} {
		if _, err := p.LookPath(tool); err != nil {
			t.Skipf("needs %s (Debian: qemu-utils, libnbd-bin): %v", tool, err)
		}
	}
	size := p.takeover(primary).Volumes[0].SizeBytes
	for round := range 2 {
		image := p.randomImage(primary, size)
		p.run(primary, "nbdcopy", "--flush", image, p.device(primary))
		p.run(primary, "qemu-io", "-f", "raw", "-c", "write -f -P 0xab 1M 192k", "-c", "write -z 3M 64k", "-c", "discard 5M 1M", "-c", "flush", p.device(primary))
		p.run(primary, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 5M 1M", "-c", "flush", p.device(primary)) // a discard need not read as zero
		p.must(p.PowerOff(primary))
		p.takeover(survivor)
		p.run(survivor, "qemu-io", "-f", "raw", "-c", "read -P 0xab 1M 192k", "-c", "read -P 0 3M 64k", "-c", "read -P 0x5a 5M 1M", p.device(survivor))
		p.run(survivor, "nbdcopy", p.device(survivor), image+".back")
		p.sameBut(image, image+".back", [][2]int64{{1 * mib, 1*mib + 192<<10}, {3 * mib, 3*mib + 64<<10}, {5 * mib, 6 * mib}})
		p.must(p.PowerOn(primary))
		p.rejoined(primary)
		p.finish()
		p.say("round %d is done", round+1)
		primary, survivor = survivor, primary
	}
}

// The source of a resync dies: the half-synced copy waits for it. Then the
// target does: the source goes on.
func TestPowerOffDuringResync(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(secondary))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	p.run(primary, "dd", "if=/dev/urandom", "of=/srv/pg/ballast", "bs=1M", "count=16", "conv=fsync")
	p.halfSynced(primary, secondary)
	p.must(p.PowerOff(primary))
	p.stays(secondary)
	p.must(p.PowerOn(primary))
	p.takeover(primary)
	w.progress(steady)
	p.rejoined(secondary)

	p.must(p.PowerOff(secondary))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	p.run(primary, "dd", "if=/dev/urandom", "of=/srv/pg/ballast", "bs=1M", "count=16", "conv=fsync,notrunc")
	p.halfSynced(primary, secondary)
	p.must(p.PowerOff(secondary))
	w.progress(steady)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	w.stop()
	p.finish()
}

// halfSynced switches the Secondary on and waits until its resync has begun.
// It is fast: now and then it is over before it is seen, which is fine too.
func (p *pair) halfSynced(primary, secondary string) {
	p.t.Helper()
	p.must(p.PowerOn(secondary))
	r := p.resource(primary, "syncs to its peer", func(r *apiv1.Resource) bool { return inSync(r) || len(r.Peers) == 1 && r.Peers[0].Resync != nil })
	p.say("resync: %+v, in sync %v", r.Peers[0].Resync, r.InSync)
}

func (p *pair) run(node string, argv ...string) string {
	p.t.Helper()
	out, err := p.Run(p.ctx, node, argv...)
	p.must(err)
	return out
}

// number reads a count from the environment.
func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number from 1", variable, text)
	}
	return n
}

// long leaves a test to `make netns`: others cover most of what it finds.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("HAPAIR_LONG") == "" {
		t.Skip("takes long: HAPAIR_LONG=1")
	}
}
