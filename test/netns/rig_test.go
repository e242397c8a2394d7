package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// Bounds, generous: they only end what hangs.
const (
	patience = 90 * time.Second
	tick     = 20 * time.Millisecond
	leaseMax = 500 * time.Millisecond // the default, which the labs use
	mib      = 1 << 20
)

// pair is a lab under test.
type pair struct {
	*lab.Lab
	t     *testing.T
	ctx   context.Context
	fs    bool
	next  uint64           // first number of the next writer
	acked map[uint64]bool  // records answered to any writer
	slots map[int64]uint64 // newest block answered to any prober, by slot
}

// smallVolume fits everything but what must show how little is resynced.
const smallVolume = 64 * mib

// newPair brings a pair up. With a file system it has the record service and
// the service address; without, a bare device.
func newPair(t *testing.T, withFS bool, change func(*lab.Options)) *pair {
	t.Helper()
	return newPairFor(t, 0, withFS, change)
}

// newPairFor is newPair for a test that lets it run for a while.
func newPairFor(t *testing.T, lasts time.Duration, withFS bool, change func(*lab.Options)) *pair {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces, mounts and loop devices")
	}
	o := lab.Options{Dir: filepath.Join(t.TempDir(), "lab"), Size: smallVolume, Tether: true, Log: stamped(t)}
	if withFS {
		o.Filesystem, o.Services = "ext4", recordServices(t)
	}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lasts+8*time.Minute)
	l, err := lab.Up(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	p := &pair{Lab: l, t: t, ctx: ctx, fs: withFS, next: 1, acked: map[uint64]bool{}, slots: map[int64]uint64{}}
	t.Cleanup(func() {
		cancel()
		p.down()
	})
	return p
}

// stamped logs with the time, as the agents do.
func stamped(t *testing.T) func(string, ...any) {
	return func(format string, args ...any) {
		t.Logf(time.Now().UTC().Format("15:04:05.000 ")+format, args...)
	}
}

func (p *pair) say(format string, args ...any) { stamped(p.t)(format, args...) }

func recordServices(t *testing.T) []string {
	t.Helper()
	halab, err := filepath.Abs("../../bin/halab")
	if self, serr := os.Executable(); serr == nil { // a test binary that was put beside the programs
		if beside := filepath.Join(filepath.Dir(self), "halab"); exists(beside) {
			halab = beside
		}
	}
	if err != nil || !exists(halab) {
		t.Fatalf("no halab at %s (make build): %v", halab, err)
	}
	return []string{
		"mount: {path: /srv/pg, type: ext4}",
		fmt.Sprintf("{name: records, exec: {start: [%[1]s, recordd, start], stop: [%[1]s, recordd, stop], status: [%[1]s, recordd, status]}}", halab),
		"address: {ip: " + lab.ServiceAddress + "/24, dev: eth0}",
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// down ends the lab and looks for what it left, passed or failed.
func (p *pair) down() {
	if p.t.Failed() {
		p.keepLogs()
	}
	if err := p.Down(); err != nil {
		p.t.Error(err)
	}
	if leaks := p.Leaks(); len(leaks) > 0 {
		p.t.Errorf("left behind: %q", leaks)
	}
}

const tailBytes = 6000

// keepLogs keeps the agents' logs of a test that failed, or shows their ends.
func (p *pair) keepLogs() {
	for _, name := range p.Nodes() {
		text, err := os.ReadFile(p.LogFile(name))
		if err != nil || len(text) == 0 {
			continue
		}
		if dir := os.Getenv("HAPAIR_KEEP"); dir != "" {
			file := filepath.Join(dir, strings.ReplaceAll(p.t.Name(), "/", "-")+"-"+name+".log")
			if err := os.WriteFile(file, text, 0o600); err == nil {
				p.t.Logf("the log of %s is in %s", name, file)
				continue
			}
		}
		p.t.Logf("the end of the log of %s:\n%s", name, text[max(0, len(text)-tailBytes):])
	}
}

// must ends the test on an error.
func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// other is the data node that is not this one.
func (p *pair) other(name string) string {
	nodes := p.Data()
	if nodes[0] == name {
		return nodes[1]
	}
	return nodes[0]
}

// resource waits for the resource as a node sees it.
func (p *pair) resource(node, what string, ok func(*apiv1.Resource) bool) *apiv1.Resource {
	p.t.Helper()
	r, err := p.AwaitResource(p.ctx, node, patience, ok)
	if err != nil {
		p.t.Fatalf("%s: %s: %v", node, what, err)
	}
	p.say("%s: %s (token %d)", node, what, r.Token)
	return r
}

// look is the resource as a node sees it now; nil when the node does not say.
func (p *pair) look(node string) *apiv1.Resource {
	ctx, cancel := context.WithTimeout(p.ctx, time.Second)
	defer cancel()
	s, err := p.Status(ctx, node)
	if err != nil {
		return nil
	}
	return s.Resource(p.Resource())
}

// primary waits until one of the data nodes is Primary and serves.
func (p *pair) primary() string {
	p.t.Helper()
	var found string
	p.eventually("one node is Primary and serves", func() error {
		for _, name := range p.Data() {
			if r := p.look(name); r != nil && serving(r) {
				found = name
				return nil
			}
		}
		return errors.New("none does")
	})
	return found
}

// eventually asks again and again until it is so.
func (p *pair) eventually(what string, ok func() error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	again := time.NewTicker(tick)
	defer again.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("%s: not so after %s: %v", what, patience, err)
		case <-again.C:
		}
	}
}

func serving(r *apiv1.Resource) bool {
	idle := func(s apiv1.Service) bool { return s.State != apiv1.ServiceRunning }
	absent := func(v apiv1.Volume) bool { return v.Device == "" } // promoted, but not open yet
	return r.Role == "Primary" && !r.Frozen && !slices.ContainsFunc(r.Volumes, absent) && !slices.ContainsFunc(r.Services, idle)
}

func inSync(r *apiv1.Resource) bool {
	return len(r.InSync) == 2 && r.DiskState == "UpToDate" && len(r.Peers) == 1 &&
		r.Peers[0].Replication == "Established" && r.Peers[0].DiskState == "UpToDate"
}

// settle waits until both copies are current and one node serves, and returns
// it and the other.
func (p *pair) settle() (primary, secondary string) {
	p.t.Helper()
	primary = p.primary()
	secondary = p.other(primary)
	p.resource(primary, "serves, both copies are current", func(r *apiv1.Resource) bool { return serving(r) && inSync(r) })
	p.resource(secondary, "is Secondary and in sync", func(r *apiv1.Resource) bool {
		return r.Role == "Secondary" && r.Primary == primary && inSync(r)
	})
	p.bare(secondary)
	return primary, secondary
}

// takeover waits until a node has become Primary and serves.
func (p *pair) takeover(node string) *apiv1.Resource {
	p.t.Helper()
	return p.resource(node, "is Primary and serves", serving)
}

// rejoined waits until a node is Secondary and in sync again.
func (p *pair) rejoined(node string) {
	p.t.Helper()
	p.resource(p.other(node), "serves, both copies are current", func(r *apiv1.Resource) bool { return serving(r) && inSync(r) })
	p.resource(node, "is Secondary and in sync", func(r *apiv1.Resource) bool { return r.Role == "Secondary" && inSync(r) })
	p.status(p.other(node), "counts the vote of "+node, func(s *apiv1.Status) bool { return s.Quorum.Voters == len(s.Members) })
	p.bare(node)
}

// bare waits until nothing of the resource is left on a node: no file system,
// no service, no address, no device.
func (p *pair) bare(node string) {
	p.t.Helper()
	p.eventually("nothing of the resource is left on "+node, func() error {
		out, err := p.Run(p.ctx, node, "sh", "-c", leftovers)
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}
		return err
	})
}

// leftovers prints what a Primary has and a Secondary must not.
const leftovers = `grep " /srv/pg " /proc/self/mountinfo
ip -o address show | grep -F " ` + lab.ServiceAddress + `/"
grep -az "^recordd$" /proc/[0-9]*/cmdline | tr "\0" " "
ls -d /dev/hapair/*/* 2>/dev/null
true`

// pathOf waits until the mirror link of a node goes over a path.
func (p *pair) pathOf(node, path string) *apiv1.Resource {
	p.t.Helper()
	return p.resource(node, "mirrors over "+path, func(r *apiv1.Resource) bool {
		return inSync(r) && r.Peers[0].Path == path
	})
}

// finish checks what every test must leave: all records that were answered are
// on the disks, and the disks are the same.
func (p *pair) finish() {
	p.t.Helper()
	primary, _ := p.settle()
	p.verify(primary)
	p.identical(primary)
}
