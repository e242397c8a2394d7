package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// checker judges the relations between values that are each well-formed.
type checker struct {
	cfg  *Config
	src  *source
	errs Errors
}

func (c *checker) fail(at, hint, format string, args ...any) {
	c.errs = append(c.errs, c.src.errAt(c.src.find(at), fmt.Sprintf(format, args...), hint))
}

// line names where a path stands, for messages about two places.
func (c *checker) line(at string) string {
	if p, ok := c.src.at[at]; ok && p.line > 0 {
		return fmt.Sprintf("line %d", p.line)
	}
	return "default"
}

// place names the line of the nearest thing around a path.
func (c *checker) place(at string) string {
	return fmt.Sprintf("line %d", c.src.find(at).line)
}

// normalize turns short forms into the full one and fills what depends on
// other values.
func (c *checker) normalize() {
	cfg := c.cfg
	c.shortForm()
	if cfg.Arbitration == "" {
		cfg.Arbitration = ArbitrateManual
		if cfg.Witness != nil {
			cfg.Arbitration = ArbitrateWitness
		}
	}
	// A section that is not in the file was never decoded: defaults are set here.
	if cfg.Security == (Security{}) {
		cfg.Security.setDefaults()
	}
	if cfg.Timing == (Timing{}) {
		cfg.Timing.setDefaults()
	}
	if _, given := c.src.at["api"]; !given {
		cfg.API.setDefaults()
	}
	c.sbdTimeouts()
	for i := range cfg.Resources {
		nameServices(cfg.Resources[i].Services)
	}
}

// shortForm moves a top-level disk into a resource of its own.
func (c *checker) shortForm() {
	cfg := c.cfg
	if cfg.Disk.IsZero() {
		if !cfg.Metadata.IsZero() {
			c.fail("metadata", "", "metadata is given without a disk")
		}
		return
	}
	if len(cfg.Resources) > 0 {
		c.fail("disk", "move it into a volume: volumes: [{disk: ...}]", "disk stands beside resources: which resource is it for?")
		return
	}
	var r Resource
	var v Volume
	r.setDefaults()
	v.setDefaults()
	r.Name, v.Disk = DefaultResource, cfg.Disk
	c.src.at["resources.data.volumes[0].disk"] = c.src.find("disk")
	if !cfg.Metadata.IsZero() {
		v.Metadata = cfg.Metadata
		c.src.at["resources.data.volumes[0].metadata"] = c.src.find("metadata")
	}
	r.Volumes = []Volume{v}
	cfg.Resources, cfg.Disk, cfg.Metadata = []Resource{r}, PerNode{}, PerNode{}
}

// nameServices gives each unnamed service the name of what it is.
func nameServices(services []Service) {
	for i := range services {
		s := &services[i]
		if s.Name != "" {
			continue
		}
		switch {
		case s.Mount != nil:
			s.Name = s.Mount.Path
		case s.Systemd != "":
			s.Name = s.Systemd
		case s.Address != nil:
			s.Name = s.Address.IP.String()
		case s.OCF != nil:
			s.Name = ocfName(s.OCF.Agent)
		case s.Exec != nil && len(s.Exec.Start) > 0:
			s.Name = fmt.Sprintf("exec-%d", i)
		}
	}
}

// ocfName is the type of an agent, as Pacemaker's users call their resources.
func ocfName(agent string) string { return agent[strings.LastIndex(agent, ":")+1:] }

func (c *checker) validate() {
	c.names()
	c.addresses()
	c.arbitration()
	c.settings()
	c.timing()
	c.resources()
	c.disks()
	c.fencing()
	c.watchdog()
}

// namePattern is labels of a host name: a node's name stands in its certificate
// as one, and a resource's is a directory's.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*$`)

// reservedNames would read as a keyword where a node's name is expected.
var reservedNames = map[string]bool{"all": true, "self": true, "peer": true, "none": true, Internal: true}

func (c *checker) name(at, what, name string) {
	switch {
	case name == "":
		c.fail(at, "", "%s has no name", what)
	case len(name) > MaxNameBytes:
		c.fail(at, "", "%s name is %d bytes long; at most %d", what, len(name), MaxNameBytes)
	case !namePattern.MatchString(name):
		c.fail(at, "use letters, digits and - _ . inside, as in alpha or db-1", "%q is no good as a %s name", name, what)
	case reservedNames[name]:
		c.fail(at, "", "%q is reserved and cannot be a %s name", name, what)
	}
}

func (c *checker) names() {
	cfg := c.cfg
	c.name("cluster", "cluster", cfg.Cluster)
	if len(cfg.Nodes) == 0 {
		c.fail("nodes", "add nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}", "no nodes")
	}
	if len(cfg.Nodes) == 1 {
		c.fail("nodes."+cfg.Nodes[0].Name, "name the other machine too", "one node; a pair has two")
	}
	if len(cfg.Nodes) > MaxDataNodes {
		third := cfg.Nodes[MaxDataNodes].Name
		c.fail("nodes."+third, fmt.Sprintf("if %s is to vote without data, name it under witness:", third),
			"%d data nodes; a cluster has at most %d", len(cfg.Nodes), MaxDataNodes)
	}
	for _, n := range cfg.Nodes {
		c.name("nodes."+n.Name, "node", n.Name)
	}
	if w := cfg.Witness; w != nil {
		c.name("witness.name", "witness", w.Name)
		if cfg.Node(w.Name) != nil {
			c.fail("witness.name", "the witness must be a third machine", "witness %q is also a data node (%s)", w.Name, c.line("nodes."+w.Name))
		}
	}
}

func (c *checker) addresses() {
	seen := map[netip.Addr]string{}
	check := func(at string, ip netip.Addr) {
		switch {
		case !ip.IsValid():
			c.fail(at, "", "an address is missing")
			return
		case ip.IsUnspecified() || ip.IsMulticast():
			c.fail(at, "give the node's own address on that network", "%s cannot be the address of a node", ip)
		}
		if first, twice := seen[ip.Unmap()]; twice {
			c.fail(at, "", "address %s is given twice, first on %s", ip, c.place(first))
			return
		}
		seen[ip.Unmap()] = at
	}
	for _, n := range c.cfg.Nodes {
		at := "nodes." + n.Name
		if len(n.Addresses) == 0 {
			c.fail(at, fmt.Sprintf("as in %s: {addresses: {crossover: 10.99.0.1}}", n.Name), "node %q has no address", n.Name)
		}
		if len(n.Addresses) > MaxPaths {
			c.fail(at, "", "node %q has %d addresses; at most %d", n.Name, len(n.Addresses), MaxPaths)
		}
		for _, a := range n.Addresses {
			where := at + ".addresses." + a.Path
			c.name(where, "path", a.Path)
			check(where, a.IP)
		}
	}
	if c.cfg.Witness != nil {
		check("witness.address", c.cfg.Witness.Address)
	}
	c.samePaths()
}

// samePaths wants each path to have two ends.
func (c *checker) samePaths() {
	if len(c.cfg.Nodes) != 2 {
		return
	}
	for i, n := range c.cfg.Nodes {
		other := c.cfg.Nodes[1-i]
		var names []string
		for _, a := range other.Addresses {
			names = append(names, a.Path)
		}
		for _, a := range n.Addresses {
			if _, ok := other.On(a.Path); !ok && len(names) > 0 {
				hint := didYouMean(a.Path, names)
				if hint == "" {
					hint = "a path has an address on both nodes, under the same name"
				}
				c.fail("nodes."+n.Name+".addresses."+a.Path, hint, "path %q has no end on node %q", a.Path, other.Name)
			}
		}
	}
}

func (c *checker) arbitration() {
	cfg := c.cfg
	switch cfg.Arbitration {
	case ArbitrateWitness:
		if cfg.Witness == nil {
			c.fail("arbitration", "add witness: {name: gamma, address: 192.168.1.13}, or use arbitration: manual",
				"arbitration by a witness, but there is no witness")
		}
	case ArbitrateFencing:
		c.fenceable()
	case ArbitrateManual:
		if cfg.Witness != nil {
			c.fail("arbitration", "use arbitration: witness, or leave the witness out", "a witness is given, but arbitration is manual: it would vote for nothing")
		}
	default:
		c.oneOf("arbitration", string(cfg.Arbitration), "witness", "fencing", "manual")
	}
}

// oneOf refuses a value outside a list.
func (c *checker) oneOf(at, got string, known ...string) {
	for _, k := range known {
		if got == k {
			return
		}
	}
	hint := didYouMean(got, known)
	if hint == "" {
		hint = "one of " + strings.Join(known, ", ")
	}
	c.fail(at, hint, "%q is not known here", got)
}

func (c *checker) settings() {
	cfg := c.cfg
	for _, p := range []struct {
		at   string
		port uint16
	}{{"port", cfg.Port}, {"heartbeat_port", cfg.HeartbeatPort}} {
		if p.port == 0 {
			c.fail(p.at, "", "%s cannot be 0: both nodes must know it", p.at)
		}
	}
	if cfg.Port == cfg.HeartbeatPort {
		c.fail("heartbeat_port", "", "port and heartbeat_port are both %d", cfg.Port)
	}
	for at, dir := range map[string]string{
		"state_dir": cfg.StateDir, "run_dir": cfg.RunDir, "device_dir": cfg.DeviceDir,
	} {
		c.absolute(at, dir)
	}
	s := cfg.Security
	c.oneOf("security.mode", string(s.Mode), string(SecurityTLS), string(SecurityPSK))
	for at, file := range map[string]string{
		"ca_file": s.CAFile, "cert_file": s.CertFile, "key_file": s.KeyFile, "psk_file": s.PSKFile, "gossip_key_file": s.GossipKeyFile,
	} {
		c.absolute("security."+at, file)
	}
	if a := cfg.API.MetricsAddress; a != "" {
		if _, port, err := net.SplitHostPort(a); err != nil {
			c.fail("api.metrics_address", "as in 127.0.0.1:9790", "%q is not host:port", a)
		} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			c.fail("api.metrics_address", "as in 127.0.0.1:9790", "the port of %q is not a number between 1 and 65535", a)
		}
	}
}

func (c *checker) absolute(at, p string) {
	if !path.IsAbs(p) {
		c.fail(at, "begin with /", "%q is not an absolute path", p)
	} else if path.Clean(p) != p {
		c.fail(at, "did you mean \""+path.Clean(p)+"\"?", "%q is not a plain path", p)
	}
}

func (c *checker) timing() {
	t := c.cfg.Timing
	all := []struct {
		at string
		d  time.Duration
	}{
		{"link", t.Link}, {"lease", t.Lease}, {"renew", t.Renew}, {"grace", t.Grace},
	}
	for _, x := range all {
		if x.d < time.Millisecond || x.d > MaxTiming {
			c.fail("timing."+x.at, "", "timing %s is %s; between 1ms and %s", x.at, x.d, MaxTiming)
		}
	}
	switch {
	case t.Heartbeat < MinHeartbeat:
		c.fail("timing.heartbeat", "", "heartbeat is %s; under %s a loaded machine fails over by itself", t.Heartbeat, MinHeartbeat)
	case t.Heartbeat > MaxHeartbeat:
		c.fail("timing.heartbeat", "", "heartbeat is %s; at most %s", t.Heartbeat, MaxHeartbeat)
	}
	if t.Probe < MinProbe || t.Probe > MaxProbe {
		c.fail("timing.probe", "", "probe is %s; between %s and %s", t.Probe, MinProbe, MaxProbe)
	}
	c.less("heartbeat", t.Heartbeat, "lease", t.Lease, "the leader's silence must be noticed before the lease runs out")
	c.less("link", t.Link, "lease", t.Lease, "a silent peer must be noticed before the lease runs out")
	c.less("lease", t.Lease, "grace", t.Grace, "the others must wait longer than the holder may write")
	c.margin(t)
	if 3*t.Renew > t.Lease {
		c.fail("timing.renew", fmt.Sprintf("renew at most %s, or lengthen the lease", (t.Lease/3).Truncate(time.Millisecond)),
			"renew (%s, %s) is more than a third of lease (%s, %s): two lost renewals would freeze I/O",
			t.Renew, c.line("timing.renew"), t.Lease, c.line("timing.lease"))
	}
}

// margin is what a voter adds to a lease, for clocks that differ.
func (c *checker) margin(t Timing) {
	margin, least := t.Grace-t.Lease, t.Lease/50
	if margin <= 0 || margin >= least && margin <= t.Lease {
		return
	}
	c.fail("timing.grace", fmt.Sprintf("between %s and %s", t.Lease+least, 2*t.Lease),
		"grace (%s, %s) is %s longer than lease (%s, %s); wanted between 2%% of the lease, for clocks that differ, and the lease again",
		t.Grace, c.line("timing.grace"), margin, t.Lease, c.line("timing.lease"))
}

// less refuses a >= b, at whichever of the two the file gives.
func (c *checker) less(a string, da time.Duration, b string, db time.Duration, why string) {
	if da < db {
		return
	}
	at := "timing." + a
	if _, given := c.src.at[at]; !given {
		at = "timing." + b
	}
	c.fail(at, why, "%s (%s, %s) is not shorter than %s (%s, %s)", a, da, c.line("timing."+a), b, db, c.line("timing."+b))
}
