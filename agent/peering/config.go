// Package peering is the one door between the nodes of a cluster: streams that
// are authenticated before anything else is said, over whichever configured
// path answers. Mirror links, the ledger, leases and joining nodes all use it.
//
// DESIGN.md tells how a stream comes about, which goroutines there are and what
// wakes them.
package peering

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// Bounds, all of them.
const (
	// DefaultPort is the TCP port where a host is given without one.
	DefaultPort = 7790
	// MaxNameBytes bounds names of clusters, nodes and paths.
	MaxNameBytes = 63
	// MaxPurposeBytes bounds a purpose.
	MaxPurposeBytes = 128
	// MaxTextBytes bounds the sentence of a refusal.
	MaxTextBytes = 512
	// MaxHelloBytes bounds hello and answer, whatever they say: the largest
	// hello is 5*(1+63)+1+128+24 bytes.
	MaxHelloBytes = 1024
	// MaxHandshakes bounds the strangers that may be on the doorstep of one path
	// at once, so that a crowd on one path does not block another.
	MaxHandshakes = 64
	// MaxConns bounds the accepted streams of one node. Two per mirrored
	// resource and a handful for the ledger are usual.
	MaxConns = 1024
)

// Mode says how peers prove who they are.
type Mode uint8

const (
	// TLS is TLS 1.3 with certificates of the cluster's own authority on both
	// sides. Everything is encrypted.
	TLS Mode = iota + 1
	// PSK is a mutual challenge and response over a shared key when the stream
	// is set up, and plain TCP afterwards: what follows is protected by the
	// checksums of its own protocol against damage, by nothing against an
	// attacker on the wire. It is meant for a private cable.
	PSK
)

// String returns the word of the configuration.
func (m Mode) String() string {
	switch m {
	case TLS:
		return "tls"
	case PSK:
		return "psk"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// Config is what New needs. Zero durations take the defaults named there.
type Config struct {
	Cluster string
	Node    string // this node
	// Nodes gives each node's address per path: host or host:port. This node's
	// own entry says where to listen and from which address to dial.
	Nodes map[string]map[string]string
	// PathOrder is the preference among paths; those left out follow by name.
	PathOrder []string

	Mode Mode
	// Material is this node's certificate and its authority; mode TLS.
	Material *Material
	// Key is the shared key, KeyBytes long; mode PSK.
	Key []byte

	// Incarnation returns the incarnation of the cluster this node belongs to.
	// It is called at every handshake, from many goroutines.
	Incarnation func() uint64
	// Apart, if set, says whether a node went on apart from this one: then neither
	// incarnation supersedes the other, and both are listened to. It is called like
	// Incarnation.
	Apart func(node string) bool
	// Machine, if set, returns the identity of this machine, of at most MaxNameBytes,
	// "" while it is not known; Stranger whether a machine is another than the one that
	// has a node's name: it is not talked to then, but about the ledger, which gives
	// the names. An identity of "" is of a peer that tells none. Both are called
	// like Incarnation.
	Machine  func() string
	Stranger func(node, machine string) error
	// Refused, if set, is told of every refusal, in either direction: this is
	// where a node learns that it has been left behind. It must not block.
	Refused func(*RefusedError)

	Logger *zap.Logger

	HandshakeTimeout time.Duration // of one stream, after TCP; default 3 s
	HandshakeTurn    time.Duration // of it, while other paths wait; default 1 s, HandshakeTimeout at most
	DialTimeout      time.Duration // of one TCP connect; default 3 s
	Stagger          time.Duration // head start of a better path; default 75 ms
	// UserTimeout ends a stream whose data is not acknowledged for so long;
	// default 30 s. The kernel counts a peer that is alive but does not read,
	// its disk stalled, the same way, so it must be longer than any such pause:
	// quick detection is the business of those above.
	UserTimeout time.Duration
	KeepAlive   time.Duration // idle time and interval of probes, three of them; default 1 s
}

// nameRule is what a name may look like: labels of a host name, because it
// stands in a certificate as one.
var nameRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*$`)

func checkName(what, name string) error {
	if len(name) > MaxNameBytes || !nameRule.MatchString(name) {
		return fmt.Errorf("peering: %s %.80q: must be 1 to %d letters, digits, '-', '_' and '.', with a letter or digit at both ends", what, name, MaxNameBytes)
	}
	return nil
}

// check judges the configuration and fills in the defaults.
func (c *Config) check() error {
	if err := checkName("cluster", c.Cluster); err != nil {
		return err
	}
	if err := checkName("node", c.Node); err != nil {
		return err
	}
	if _, ok := c.Nodes[c.Node]; !ok {
		return fmt.Errorf("peering: node %q has no address of its own among %d nodes", c.Node, len(c.Nodes))
	}
	if err := checkNodes(c.Nodes); err != nil {
		return err
	}
	switch {
	case c.Mode == TLS && c.Material == nil:
		return fmt.Errorf("peering: mode tls without a certificate")
	case c.Mode == PSK && len(c.Key) != KeyBytes:
		return fmt.Errorf("peering: mode psk with a key of %d bytes, must be %d", len(c.Key), KeyBytes)
	case c.Mode != TLS && c.Mode != PSK:
		return fmt.Errorf("peering: unknown %s, must be tls or psk", c.Mode)
	case c.Incarnation == nil:
		return fmt.Errorf("peering: no source for the incarnation")
	}
	if c.Mode == TLS {
		if err := c.Material.check(c.Cluster, c.Node); err != nil {
			return err
		}
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	orDefault(&c.HandshakeTimeout, 3*time.Second)
	orDefault(&c.HandshakeTurn, min(time.Second, c.HandshakeTimeout))
	orDefault(&c.DialTimeout, 3*time.Second)
	orDefault(&c.Stagger, 75*time.Millisecond)
	orDefault(&c.UserTimeout, 30*time.Second)
	orDefault(&c.KeepAlive, time.Second)
	return nil
}

func orDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

func checkNodes(nodes map[string]map[string]string) error {
	for node, paths := range nodes {
		if err := checkName("node", node); err != nil {
			return err
		}
		for path, address := range paths {
			if err := checkName("path", path); err != nil {
				return err
			}
			if _, err := endpoint(address); err != nil {
				return fmt.Errorf("peering: node %s, path %s: %w", node, path, err)
			}
		}
	}
	return nil
}

// endpoint completes an address with the default port: host, host:port, ::1 or [::1]:port.
func endpoint(address string) (string, error) {
	if address == "" {
		return "", fmt.Errorf("empty address")
	}
	if ip := net.ParseIP(address); ip != nil {
		return net.JoinHostPort(address, strconv.Itoa(DefaultPort)), nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port, err = net.SplitHostPort(net.JoinHostPort(address, strconv.Itoa(DefaultPort)))
	}
	if err != nil || host == "" {
		return "", fmt.Errorf("address %q: must be host or host:port", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("address %q: port %q is not a number from 0 to 65535", address, port)
	} else if n == 0 && net.ParseIP(host) == nil {
		return "", fmt.Errorf("address %q: port 0 with a host name", address)
	}
	return net.JoinHostPort(host, port), nil
}

// ordered returns the paths of a node, preferred ones first.
func ordered(paths map[string]string, order []string) []string {
	var out, rest []string
	for _, path := range order {
		if _, ok := paths[path]; ok && !slices.Contains(out, path) {
			out = append(out, path)
		}
	}
	for path := range paths {
		if !slices.Contains(out, path) {
			rest = append(rest, path)
		}
	}
	slices.Sort(rest)
	return append(out, rest...)
}
