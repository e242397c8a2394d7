package netns

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

const (
	// pathRate is what each path carries a second, each way.
	pathRate = 8_000_000
	// pourBytes is what is written at once, in pieces, behind the slots of a prober.
	pourBytes, pourPiece = 10 * mib, mib / 2
	pourAt               = 50 * mib
)

// overAll has the mirror use all paths.
func overAll(o *lab.Options) { o.Settings = append(o.Settings, "paths: all") }

// throttle has each path carry pathRate and no more.
func (p *pair) throttle() {
	p.t.Helper()
	for _, node := range p.Data() {
		for _, dev := range []string{"eth0", "eth1"} {
			p.run(node, "tc", "qdisc", "add", "dev", dev, "root", "tbf", "rate", fmt.Sprintf("%dbps", pathRate), "burst", "64kb", "latency", "100ms")
		}
	}
}

// pathsOf waits until the mirror goes over these paths and no other.
func (p *pair) pathsOf(node string, paths ...string) {
	p.t.Helper()
	p.resource(node, "mirrors over "+strings.Join(paths, " and "), func(r *apiv1.Resource) bool {
		return serving(r) && inSync(r) && slices.Equal(append([]string{r.Peers[0].Path}, r.Peers[0].AlsoPaths...), paths)
	})
}

// pour writes many pieces beside each other, and says how long it took. An error of one
// ends the test.
func (p *pair) pour(node string) time.Duration {
	p.t.Helper()
	self, err := os.Executable()
	p.must(err)
	took, err := time.ParseDuration(strings.TrimSpace(p.run(node, self, pourWord, p.look(node).Volumes[0].Device)))
	p.must(err)
	return took
}

// pourWord makes the test's own program write to the device that it is given.
const pourWord = "netns-pour"

// runPour writes all pieces at once, and says how long it took.
func runPour(args []string) error {
	f, err := os.OpenFile(args[0], os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(-1, 0, pourBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned, for O_DIRECT
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := rand.Read(memory); err != nil {
		return errors.Join(err, f.Close())
	}
	begun := time.Now()
	failed := make(chan error)
	for at := 0; at < pourBytes; at += pourPiece {
		go func() {
			_, err := f.WriteAt(memory[at:at+pourPiece], int64(pourAt+at))
			failed <- err
		}()
	}
	for range pourBytes / pourPiece {
		err = errors.Join(err, <-failed)
	}
	took := time.Since(begun)
	_, told := fmt.Println(took)
	return errors.Join(err, told, unix.Munmap(memory), f.Close())
}

// carried is what each path to another node has carried, by name.
func (p *pair) carried(of, about string) map[string]int64 {
	p.t.Helper()
	s, err := p.Status(p.ctx, of)
	p.must(err)
	bytes := map[string]int64{}
	for _, m := range s.Members {
		for _, x := range m.Paths {
			if m.Name == about && x.Streams != nil {
				bytes[x.Name] = x.Streams.BytesOut
			}
		}
	}
	return bytes
}

// A pair that uses all paths writes faster than either carries. One is cut in the
// middle of it: no request fails, nobody changes its role, what was answered is there in
// its place, on both nodes; and the path is used again when it is well.
func TestSpread(t *testing.T) {
	long(t)
	p := newPair(t, false, overAll)
	primary, secondary := p.settle()
	p.pathsOf(primary, lab.Crossover, lab.LAN)
	p.throttle()
	b := p.probe(primary)
	b.progress(steady)
	alone := time.Duration(float64(pourBytes) / pathRate * 1e9) // no path carries it faster
	before, both := p.carried(primary, secondary), alone
	for tries := 0; both > alone*8/10 && tries < 6; tries++ { // the first finds out how fast the lane is; a busy machine leaves a path for a while
		p.pathsOf(primary, lab.Crossover, lab.LAN)
		both = min(both, p.pour(primary))
	}
	after := p.carried(primary, secondary)
	p.pathsOf(primary, lab.Crossover, lab.LAN)
	cut := time.AfterFunc(both/2, func() { p.must(p.Cut(primary, lab.Crossover)) })
	p.pour(primary)
	if cut.Stop() {
		t.Fatal("it was done before the path was cut")
	}
	p.pathsOf(primary, lab.LAN)
	b.progress(steady)
	p.unmoved(primary)
	one := p.pour(primary)
	p.say("%d MiB took %s over both paths, %s over one, which carries it in %s; over both: %v, before %v", pourBytes/mib, both, one, alone, after, before)
	if both > alone*8/10 || one < alone {
		t.Errorf("%s over both paths, %s over one", both, one)
	}
	for path := range after {
		if got := after[path] - before[path]; got < pourBytes/5 {
			t.Errorf("%s has carried %d bytes of %d", path, got, pourBytes)
		}
	}
	p.must(p.Heal(primary, lab.Crossover))
	p.pathsOf(primary, lab.Crossover, lab.LAN)
	b.progress(steady)
	b.stop()
	if f := b.failures(); len(f) > 0 {
		t.Errorf("requests failed: %+v", f)
	}
	p.unmoved(primary)
	p.finish()
}
