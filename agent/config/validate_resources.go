package config

import (
	"fmt"
	"net/netip"
	"path"
	"strings"
	"time"
)

func (c *checker) resources() {
	cfg := c.cfg
	if len(cfg.Resources) == 0 {
		c.fail("resources", "add disk: /dev/vg0/data, or resources: {pg: {volumes: [{disk: /dev/vg0/pg}]}}", "nothing to replicate: no resource and no disk")
	}
	if len(cfg.Resources) > MaxResources {
		c.fail("resources", "", "%d resources; at most %d", len(cfg.Resources), MaxResources)
	}
	first := taken{vips: map[netip.Addr]string{}, mounts: map[string]string{}, volumes: map[mounted]string{}, units: map[string]string{}}
	for i := range cfg.Resources {
		r := &cfg.Resources[i]
		at := "resources." + r.Name
		c.name(at, "resource", r.Name)
		c.resourceSettings(at, r)
		c.volumes(at, r)
		c.services(at, r, &first)
	}
	c.virtualMACs()
	c.sources()
}

func (c *checker) resourceSettings(at string, r *Resource) {
	c.oneOf(at+".frontend", string(r.Frontend), "auto", "ublk", "nbd", "fuse", "export")
	c.oneOf(at+".on_no_quorum", string(r.OnNoQuorum), string(SuspendIO), string(FailIO))
	c.oneOf(at+".on_io_error", string(r.OnIOError), string(DetachOnError), string(PassOnError))
	c.afterSplit(at+".after_split_brain", r.AfterSplitBrain)
	if s, err := ParseSize(string(r.SplitBrainKeep)); r.SplitBrainKeep != KeepAll && r.SplitBrainKeep != KeepOff && (err != nil || s < MinVolumeBytes) {
		c.fail(at+".split_brain_keep", "a size is for each volume, as in 50GiB", "%q: want all, off, or a size of at least %s", r.SplitBrainKeep, Size(MinVolumeBytes))
	}
	c.patience(at+".disk_timeout", r.DiskTimeout)
	c.patience(at+".peer_timeout", r.PeerTimeout)
	c.oneOf(at+".protocol", string(r.Protocol), string(ProtocolC), string(ProtocolB), string(ProtocolA))
	c.oneOf(at+".paths", string(r.Paths), string(PathsOne), string(PathsAll))
	c.congestion(at+".congestion", r)
	if v := r.Verify; v != (Verify{}) {
		if v.Every < MinVerifyEvery || v.Every > MaxVerifyEvery {
			c.fail(at+".verify.every", "a week is 7d", "every %s: between %s and %s", v.Every, MinVerifyEvery, MaxVerifyEvery)
		}
		if v.Rate < MinVerifyRate {
			c.fail(at+".verify.rate", "", "rate %s: at least %s", v.Rate, MinVerifyRate)
		}
	}
	if n := r.PreferredNode; n != "" && c.cfg.Node(n) == nil {
		c.unknownNode(at+".preferred_node", n)
	}
	c.failback(at, r)
}

func (c *checker) congestion(at string, r *Resource) {
	g := r.Congestion
	if g.Fill < MinCongestionFill || g.Fill > MaxCongestionFill {
		c.fail(at+".fill", "", "fill %s: between %s and %s", g.Fill, MinCongestionFill, MaxCongestionFill)
	}
	c.oneOf(at+".action", string(g.Action), string(CongestionBlock), string(CongestionPullAhead))
	if g.Action == CongestionPullAhead && r.Protocol != ProtocolA {
		c.fail(at+".action", "only protocol: A pulls ahead; use action: block", "action %s with protocol %s: nothing is answered that the peer does not have", g.Action, r.Protocol)
	}
}

func (c *checker) afterSplit(at string, a AfterSplitBrain) {
	if a == (AfterSplitBrain{}) {
		return
	}
	if err := a.Policies().Check(c.cfg.NodeNames()); err != nil {
		c.fail(at, "the names are DRBD's, of after-sb-0pri, after-sb-1pri and after-sb-2pri; disconnect leaves it to you", "%v", err)
	}
}

func (c *checker) patience(at string, d time.Duration) {
	if !patient(d) {
		c.fail(at, "0 waits for ever", "%s: between %s and %s", d, MinPatience, MaxPatience)
	}
}

func patient(d time.Duration) bool { return d == 0 || d >= MinPatience && d <= MaxPatience }

// ParsePatience reads how long to wait for a disk or a peer, as the configuration
// has it: 0, for ever, or a time within the bounds.
func ParsePatience(s string) (time.Duration, error) {
	d, err := parseTime(s)
	if err != nil || !patient(d) {
		return 0, fmt.Errorf("%q: want a time between %s and %s, as 30s, or 0 to wait for ever", s, MinPatience, MaxPatience)
	}
	return d, nil
}

func (c *checker) unknownNode(at, name string) {
	hint := didYouMean(name, c.cfg.NodeNames())
	if hint == "" {
		hint = "data nodes: " + strings.Join(c.cfg.NodeNames(), ", ")
	}
	c.fail(at, hint, "%q is not a data node", name)
}

func (c *checker) volumes(at string, r *Resource) {
	if len(r.Volumes) == 0 {
		c.fail(at, "add volumes: [{disk: /dev/vg0/"+r.Name+"}]", "resource %q has no volume", r.Name)
	}
	if len(r.Volumes) > MaxVolumes {
		c.fail(at+".volumes", "", "%d volumes; at most %d", len(r.Volumes), MaxVolumes)
	}
	for i := range r.Volumes {
		v := &r.Volumes[i]
		at := fmt.Sprintf("%s.volumes[%d]", at, i)
		c.perNode(at+".disk", "disk", v.Disk)
		c.perNode(at+".metadata", "metadata", v.Metadata)
		if v.Size != 0 && (v.Size < MinVolumeBytes || v.Size > MaxVolumeBytes || v.Size%4096 != 0) {
			c.fail(at+".size", "", "size %s: between %s and %s, a multiple of 4KiB", v.Size, Size(MinVolumeBytes), Size(MaxVolumeBytes))
		}
	}
}

// perNode wants a value for each data node and none for others.
func (c *checker) perNode(at, what string, p PerNode) {
	if p.IsZero() {
		c.fail(at, "", "%s is missing", what)
		return
	}
	for _, n := range sortedKeys(p.ByNode) {
		if c.cfg.Node(n) == nil {
			c.unknownNode(at+"."+n, n)
		}
	}
	for _, n := range c.cfg.Nodes {
		v := p.For(n.Name)
		where := at
		if p.All == "" {
			where = at + "." + n.Name
		}
		switch {
		case v == "":
			c.fail(at, "", "%s has no value for node %q", what, n.Name)
		case what == "metadata" && v == Internal:
		case path.IsAbs(v):
			c.absolute(where, v)
		case what == "metadata":
			c.fail(where, "internal, or a path that begins with /", "metadata %q is neither", v)
		default:
			c.fail(where, "a disk is a path such as /dev/vg0/pg", "%q is not an absolute path", v)
		}
		if p.All != "" {
			return // the same for every node: judged once
		}
	}
}

// disks refuses one path used twice on a node.
func (c *checker) disks() {
	told := map[string]bool{} // places reported for the other node already
	for _, n := range c.cfg.Nodes {
		used := map[string]string{}
		take := func(at, p string) {
			if p == "" || p == Internal {
				return
			}
			if first, twice := used[p]; twice {
				if !told[at] {
					told[at] = true
					c.fail(at, "each volume needs a disk of its own", "%s is used twice on node %q, first on %s", p, n.Name, c.place(first))
				}
				return
			}
			used[p] = at
		}
		for _, r := range c.cfg.Resources {
			for j, v := range r.Volumes {
				at := fmt.Sprintf("resources.%s.volumes[%d]", r.Name, j)
				take(perNodePlace(at+".disk", v.Disk, n.Name), v.Disk.For(n.Name))
				take(perNodePlace(at+".metadata", v.Metadata, n.Name), v.Metadata.For(n.Name))
			}
		}
	}
}

func perNodePlace(at string, p PerNode, node string) string {
	if p.All == "" {
		return at + "." + node
	}
	return at
}

// taken is what a node has once, each with the place in the file of the service that has
// it: all resources may be on one node, and each may leave it alone.
type taken struct {
	vips    map[netip.Addr]string
	mounts  map[string]string // by path
	volumes map[mounted]string
	units   map[string]string // of systemd
}

type mounted struct {
	resource string
	volume   int
}

func (c *checker) services(at string, r *Resource, first *taken) {
	if len(r.Services) > MaxServices {
		c.fail(at+".services", "", "%d services; at most %d", len(r.Services), MaxServices)
	}
	names := map[string]string{}
	for i := range r.Services {
		s := &r.Services[i]
		at := fmt.Sprintf("%s.services[%d]", at, i)
		if !c.oneKind(at, s) {
			continue
		}
		if other, twice := names[s.Name]; twice {
			c.fail(at, "give one of them a name: of its own", "two services are called %q, the first on %s", s.Name, c.place(other))
		}
		names[s.Name] = at
		before := len(c.errs)
		if s.Parallel && i == 0 {
			c.fail(at+".parallel", "it belongs to the second of the two", "this service is the first: there is none before it to be parallel with")
		}
		c.serviceTimes(at, s)
		c.failures(at, r, s)
		switch s.Kind() {
		case "mount":
			c.mount(at+".mount", r, s.Mount, first)
		case "systemd":
			c.unit(at+".systemd", s.Systemd, first)
		case "exec":
			c.exec(at+".exec", s.Exec)
		case "address":
			c.vip(at+".address", s.Address, first.vips)
		}
		if err := s.usable(); err != nil && len(c.errs) == before {
			c.fail(at+"."+s.Kind(), "", "%v", err)
		}
	}
}

func (c *checker) oneKind(at string, s *Service) bool {
	n := 0
	for _, given := range []bool{s.Mount != nil, s.Systemd != "", s.Exec != nil, s.OCF != nil, s.Address != nil} {
		if given {
			n++
		}
	}
	if n != 1 {
		c.fail(at, "each item is one of mount:, systemd:, exec:, ocf:, address:", "a service names %d things to run; want exactly one", n)
	}
	return n == 1
}

func (c *checker) serviceTimes(at string, s *Service) {
	for _, x := range []struct {
		key string
		d   time.Duration
	}{{"start_timeout", s.StartTimeout}, {"stop_timeout", s.StopTimeout}, {"monitor_timeout", s.MonitorTimeout}, {"monitor_interval", s.MonitorInterval}} {
		if x.d < 100*time.Millisecond || x.d > 24*time.Hour {
			c.fail(at+"."+x.key, "", "%s is %s; between 100ms and 24h", x.key, x.d)
		}
	}
}

func (c *checker) mount(at string, r *Resource, m *MountService, first *taken) {
	c.absolute(at+".path", m.Path)
	if other, twice := first.mounts[m.Path]; twice {
		c.fail(at+".path", "", "%s is mounted twice, first on %s", m.Path, c.place(other))
	}
	first.mounts[m.Path] = at + ".path"
	v := mounted{r.Name, m.Volume}
	if m.Volume < 0 || m.Volume >= len(r.Volumes) {
		c.fail(at+".volume", "volumes are numbered from 0", "resource %q has no volume %d", r.Name, m.Volume)
	} else if other, twice := first.volumes[v]; twice {
		c.fail(at+".volume", "volume: says which one; the other volumes are numbered from 0", "volume %d is mounted twice, first on %s", m.Volume, c.place(other))
	} else {
		first.volumes[v] = at
	}
}

var unitSuffixes = []string{".service", ".socket", ".target", ".mount", ".timer", ".path", ".slice", ".scope"}

func isUnit(name string) bool {
	for _, s := range unitSuffixes {
		if strings.HasSuffix(name, s) && len(name) > len(s) && !strings.ContainsAny(name, "/ ") {
			return true
		}
	}
	return false
}

func (c *checker) unit(at, unit string, first *taken) {
	if isUnit(unit) {
		if other, twice := first.units[unit]; twice {
			c.fail(at, "what stops it for one service stops it for both: give each a unit of its own", "%s is named twice, first on %s", unit, c.place(other))
		} else {
			first.units[unit] = at
		}
		return
	}
	hint := "as in systemd: postgresql.service"
	for _, guess := range []string{strings.TrimSpace(path.Base(unit)), strings.TrimSpace(path.Base(unit)) + ".service"} {
		if isUnit(guess) {
			hint = fmt.Sprintf("did you mean %q?", guess)
			break
		}
	}
	c.fail(at, hint, "%q is not the name of a systemd unit", unit)
}

func (c *checker) exec(at string, e *ExecService) {
	for _, x := range []struct {
		key  string
		cmd  Command
		must bool
	}{{"start", e.Start, true}, {"stop", e.Stop, true}, {"status", e.Status, false}} {
		if len(x.cmd) == 0 {
			if x.must {
				c.fail(at, "", "exec has no %s command", x.key)
			}
			continue
		}
		if !path.IsAbs(x.cmd[0]) {
			c.fail(at+"."+x.key, "give the program's whole path", "program %q is not an absolute path", x.cmd[0])
		}
	}
}
