package netns

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/mirror/actlog"
	"hapair/mirror/meta"
	"hapair/test/lab"
)

// grownDisk is what disks are enlarged to.
const grownDisk = 160 * mib

var grownVolume = meta.DataBytesFor(grownDisk, actlog.DefaultSlots)

// internally has the metadata lie on the volume's own disk, where they have to move.
func internally(o *lab.Options) { o.Internal = true }

// enlarge makes the disk of a node larger, as lvextend does; the new part holds
// what somebody else left.
func (p *pair) enlarge(node string) {
	p.t.Helper()
	f, err := os.OpenFile(p.Image(node), os.O_WRONLY, 0)
	p.must(err)
	defer f.Close()
	st, err := f.Stat()
	p.must(err)
	left := []byte(strings.Repeat(node+" had other data here. ", 64<<10))
	for at := st.Size(); at < grownDisk; at += int64(len(left)) {
		_, err := f.WriteAt(left[:min(int64(len(left)), grownDisk-at)], at)
		p.must(err)
	}
}

// resize asks a node for all that the disks offer.
func (p *pair) resize(node string) error {
	return p.Verb(p.ctx, node, apiv1.VerbResize, apiv1.ResizeRequest{}, nil)
}

// hasSize waits until a node's copy has a size.
func (p *pair) hasSize(node string, size int64) {
	p.t.Helper()
	p.resource(node, fmt.Sprintf("has %d bytes", size), func(r *apiv1.Resource) bool { return len(r.Volumes) == 1 && r.Volumes[0].SizeBytes == size })
}

// largeSum prints the sum of what fill has put into the new part of the device.
type largeSum []string

// fill grows the file system on the Primary while it is mounted and written, and
// puts something into what is new. Where ext4 may not be grown while it is mounted
// (it takes CAP_SYS_RESOURCE, which not every machine of tests has), it is put
// behind the file system, which reaches no farther.
func (p *pair) fill(primary string) (sum largeSum) {
	p.t.Helper()
	device := p.takeover(primary).Volumes[0].Device
	out, err := p.Run(p.ctx, primary, "blockdev", "--getsize64", device)
	p.must(err)
	if got, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64); err != nil || got != grownVolume {
		p.t.Fatalf("%s shows %q bytes, want %d (%v)", device, out, grownVolume, err)
	}
	const count, skip = "count=80", "72" // MiB
	_, err = p.Run(p.ctx, primary, "resize2fs", device)
	if err != nil && strings.Contains(err.Error(), "Permission denied to resize filesystem") {
		p.say("ext4 cannot be grown while it is mounted here: behind it, then")
		_, err = p.Run(p.ctx, primary, "dd", "if=/dev/urandom", "of="+device, "bs=1M", count, "seek="+skip, "oflag=direct", "conv=notrunc,fsync", "status=none")
		p.must(err)
		return largeSum{"sh", "-c", "dd if=" + device + " bs=1M " + count + " skip=" + skip + " iflag=direct status=none | sha256sum"}
	}
	p.must(err)
	_, err = p.Run(p.ctx, primary, "dd", "if=/dev/urandom", "of=/srv/pg/large", "bs=1M", count, "conv=fsync", "status=none")
	p.must(err)
	return largeSum{"sha256sum", "/srv/pg/large"}
}

// A volume, and the mounted file system on it, grow under a writer; asked of the
// Secondary, the Primary does it. After a failover it is all there.
func TestVolumeGrowsUnderAWriter(t *testing.T) {
	p := newPair(t, true, internally)
	primary, secondary := p.settle()
	token := p.takeover(primary).Token
	w := p.write()
	w.progress(steady)
	p.enlarge(primary)
	p.must(p.resize(primary)) // as far as both disks go: nothing yet
	p.enlarge(secondary)
	pid := p.server(primary)
	p.must(p.resize(secondary))
	p.hasSize(secondary, grownVolume)
	large := p.fill(primary)
	w.progress(steady)
	if r := p.takeover(primary); r.Token != token || !inSync(r) || p.server(primary) != pid {
		t.Errorf("token %d was %d, in sync are %v: something was lost on the way", r.Token, token, r.InSync)
	}
	sum, err := p.Run(p.ctx, primary, large...)
	p.must(err)
	p.must(p.PowerOff(primary))
	p.takeover(secondary)
	p.hasSize(secondary, grownVolume)
	if got, err := p.Run(p.ctx, secondary, large...); err != nil || got != sum {
		t.Errorf("after the failover %q, before %q, %v", got, sum, err)
	}
	w.progress(steady)
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
	w.stop()
	p.finish()
}

// The power of either node is cut while a resize is under way there: while the
// new range is made zero, and while the metadata are written at their new place.
// What there is afterwards is a pair of one size, the old one or the new, and a
// second resize brings the new one.
func TestPowerCutDuringAResize(t *testing.T) {
	rules := map[string]string{
		"zeroes":   "write-zeroes hang",
		"metadata": fmt.Sprintf("write offset=%d length=%d hang", grownVolume, grownDisk-grownVolume),
		"switch":   fmt.Sprintf("write offset=%d length=8192 hang", grownDisk-8192),
	}
	for _, victim := range []string{"Primary", "Secondary"} {
		for at, rule := range rules {
			t.Run(victim+" "+at, func(t *testing.T) {
				if always := victim == "Primary" && at == "switch" || victim == "Secondary" && at == "metadata"; !always {
					long(t) // TestPowerCutAnywhere of mirror cuts it at every step
				}
				p := newPair(t, true, internally)
				primary, secondary := p.settle()
				node := map[string]string{"Primary": primary, "Secondary": secondary}[victim]
				w := p.write()
				w.progress(steady)
				for _, n := range p.Data() {
					p.enlarge(n)
				}
				p.must(p.Fault(p.ctx, node, rule))
				asked := make(chan error, 1)
				go func() { asked <- p.resize(primary) }()
				if node == primary && at != "zeroes" {
					p.hasSize(secondary, grownVolume) // so it is this node's turn
				}
				w.progress(steady) // the hang keeps nobody
				p.must(p.PowerOff(node))
				if err := <-asked; err == nil {
					t.Fatal("the resize came to its end")
				}
				survivor := p.other(node)
				p.takeover(survivor)
				w.progress(steady)
				p.must(p.PowerOn(node))
				p.rejoined(node)
				p.must(p.resize(survivor))
				p.hasSize(node, grownVolume)
				p.fill(survivor)
				w.progress(steady)
				w.stop()
				p.finish()
			})
		}
	}
}
