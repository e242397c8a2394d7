package netns

import (
	"strings"
	"testing"

	"hapair/agent/apiv1"
)

// smallerVolume is what the volume is made.
const smallerVolume = 48 * mib

// secondaries waits until no node is Primary and both copies are in line.
func (p *pair) secondaries() {
	p.t.Helper()
	for _, node := range p.Data() {
		p.resource(node, "is Secondary and in line", func(r *apiv1.Resource) bool {
			return r.Role == "Secondary" && r.Primary == "" && inSync(r)
		})
	}
}

// An ext4 is made smaller while it is not mounted, then the volume; before that it
// is refused, and while a node is Primary, and without the peer. Then it is mounted,
// fails over, and is whole.
func TestVolumeShrinks(t *testing.T) {
	long(t)
	p := newPair(t, false, internally)
	primary, secondary := p.settle()
	res, device := p.Resource(), p.device(primary)
	p.run(primary, "mkfs.ext4", "-q", "-F", device)
	p.run(primary, "mkdir", "-p", "/srv/shrink")
	p.run(primary, "mount", device, "/srv/shrink")
	p.run(primary, "dd", "if=/dev/urandom", "of=/srv/shrink/data", "bs=1M", "count=10", "conv=fsync", "status=none")
	sum := p.run(primary, "sha256sum", "/srv/shrink/data")
	inUse := primary + " is Primary: a volume is made smaller while no node is"
	p.refused(secondary, inUse, "resize", res, "--size", "48MiB")
	p.refused(primary, inUse, "resize", res, "--size", "48MiB", "--cut-data")
	p.run(primary, "umount", "/srv/shrink")
	p.run(primary, "hactl", "demote", res)
	p.secondaries()
	p.refused(secondary, "e2fsck -f, then resize2fs first", "resize", res, "--size", "48MiB")
	p.run(secondary, "hactl", "disconnect", res)
	p.refused(primary, "is not connected", "resize", res, "--size", "48MiB", "--cut-data")
	p.run(secondary, "hactl", "connect", res)
	p.secondaries()

	p.run(primary, "hactl", "promote", res)
	device = p.device(primary)
	p.run(primary, "e2fsck", "-f", "-p", device)
	p.run(primary, "resize2fs", device, "48M")
	p.run(primary, "hactl", "demote", res)
	p.secondaries()
	p.refused(secondary, "metadata of volume 0 move into what is cut off", "resize", res, "--size", "67055616")
	p.run(secondary, "hactl", "resize", res, "--size", "48MiB")
	for _, node := range p.Data() {
		p.hasSize(node, smallerVolume)
	}
	p.secondaries()

	p.run(primary, "hactl", "promote", res)
	device = p.device(primary)
	if got := strings.TrimSpace(p.run(primary, "blockdev", "--getsize64", device)); got != "50331648" {
		t.Fatalf("%s shows %s bytes", device, got)
	}
	p.run(primary, "mount", device, "/srv/shrink")
	if got := p.run(primary, "sha256sum", "/srv/shrink/data"); got != sum {
		t.Fatalf("%q, was %q", got, sum)
	}
	p.run(primary, "sh", "-c", "echo after > /srv/shrink/after; sync")
	p.must(p.PowerOff(primary))
	p.takeover(secondary)
	device = p.device(secondary)
	p.run(secondary, "mkdir", "-p", "/srv/shrink")
	p.run(secondary, "mount", device, "/srv/shrink")
	if got := p.run(secondary, "sha256sum", "/srv/shrink/data"); got != sum {
		t.Errorf("after the failover %q, was %q", got, sum)
	}
	if got := p.run(secondary, "cat", "/srv/shrink/after"); got != "after\n" {
		t.Errorf("after the failover: %q", got)
	}
	p.run(secondary, "umount", "/srv/shrink")
	p.run(secondary, "e2fsck", "-f", "-n", device)
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
	p.finish()
}
