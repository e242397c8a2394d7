// Package heartbeat gathers evidence about the peers, on every path, and keeps
// a verdict on each: alive, suspect or dead, with reasons. It never decides
// what follows. See DESIGN.md.
package heartbeat

import (
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"hapair/heartbeat/detect"
)

// Config is what a Heartbeat goes by.
type Config struct {
	Cluster     string // messages of another cluster are ignored
	Self        string
	Incarnation uint64 // of this node's ledger when it began; the peers see it
	Version     string // of this node's program, likewise; at most 64 bytes of it
	// Nodes holds every node's address on every path it has, this node's
	// included. Paths are watched in the order of their names, unless Order
	// says otherwise.
	Nodes map[string]map[string]netip.Addr
	Order []string // paths by preference; those it does not name follow
	Port  int      // the same on every path, TCP and UDP
	Key   []byte   // 16, 24 or 32 bytes; there is no heartbeat without one

	Probe  time.Duration // between probes; 0: DefaultProbe
	Detect detect.Config // its Peers are filled in; zero durations follow Probe

	// Clock returns the time since an arbitrary fixed start; it never goes
	// back. nil: since New.
	Clock  func() time.Duration
	Logger *zap.Logger // nil: silent

	// OnPathDown, when not nil, is called as soon as a path to a node is dead,
	// so that connections over it can be given up at once. Like Subscribe's
	// functions it is called from one goroutine and should be quick.
	OnPathDown func(node, path string, because []detect.Reason)

	transport func(path string) (memberlist.Transport, error) // for tests; nil: the network
}

// DefaultProbe finds a silent peer within about a second.
const DefaultProbe = 200 * time.Millisecond

const (
	probeMin = 20 * time.Millisecond
	probeMax = 10 * time.Second
	nodesMax = 16
	pathsMax = 8
)

// ErrNoKey is returned by New for a configuration without a usable key.
var ErrNoKey = errors.New("heartbeat messages must be encrypted: a key of 16, 24 or 32 bytes is needed")

func (c *Config) complete() error {
	if n := len(c.Key); n != 16 && n != 24 && n != 32 {
		return fmt.Errorf("key of %d bytes: %w", n, ErrNoKey)
	}
	if c.Probe == 0 {
		c.Probe = DefaultProbe
	}
	if c.Probe < probeMin || c.Probe > probeMax {
		return fmt.Errorf("probe every %s: must be %s to %s", c.Probe, probeMin, probeMax)
	}
	if c.Port < 1 || c.Port > 65535 {
		return fmt.Errorf("port %d: must be 1 to 65535", c.Port)
	}
	if len(c.Cluster) > memberlist.LabelMaxSize {
		return fmt.Errorf("cluster name of %d bytes: at most %d", len(c.Cluster), memberlist.LabelMaxSize)
	}
	if c.Clock == nil {
		begin := time.Now()
		c.Clock = func() time.Duration { return time.Since(begin) }
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if err := c.checkNodes(); err != nil {
		return err
	}
	c.completeDetect()
	return nil
}

func (c *Config) checkNodes() error {
	self, ok := c.Nodes[c.Self]
	if !ok || c.Self == "" {
		return fmt.Errorf("this node, %q, is not among the nodes", c.Self)
	}
	if len(c.Nodes) > nodesMax || len(self) > pathsMax {
		return fmt.Errorf("%d nodes and %d paths: at most %d and %d", len(c.Nodes), len(self), nodesMax, pathsMax)
	}
	used := map[netip.Addr]string{}
	for node, paths := range c.Nodes {
		for path, addr := range paths {
			where := node + " on " + path
			if path == "" || !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || addr.Is4In6() {
				return fmt.Errorf("%s has address %q: must be a host's, and the path must have a name", where, addr)
			}
			if other := used[addr]; other != "" {
				return fmt.Errorf("%s and %s have the same address %s", where, other, addr)
			}
			used[addr] = where
		}
	}
	return nil
}

// completeDetect derives what is not set from the probe interval: with n peers
// each is asked every n-th time.
func (c *Config) completeDetect() {
	round := c.Probe * time.Duration(max(len(c.Nodes)-1, 1))
	d := &c.Detect
	if d.SuspectAfter == 0 {
		d.SuspectAfter = 2*round + c.Probe
	}
	if d.DeadAfter == 0 {
		d.DeadAfter = max(4*round+2*c.Probe, 2*d.SuspectAfter)
	}
	if d.Stall == 0 {
		d.Stall = d.SuspectAfter
	}
	d.Peers = nil
	for _, node := range sortedKeys(c.Nodes) {
		if node == c.Self {
			continue
		}
		p := detect.Peer{Node: node}
		for _, path := range c.paths() {
			if c.Nodes[node][path].IsValid() {
				p.Paths = append(p.Paths, path)
			}
		}
		d.Peers = append(d.Peers, p)
	}
}

// paths returns this node's paths, in order.
func (c *Config) paths() (all []string) {
	own, seen := c.Nodes[c.Self], map[string]bool{}
	for _, p := range append(append([]string(nil), c.Order...), sortedKeys(own)...) {
		if own[p].IsValid() && !seen[p] {
			all, seen[p] = append(all, p), true
		}
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
