package commands

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/agent/peering"
)

// DefaultJoinPort is where the first invited node comes; further ones come to
// the ports after it.
const DefaultJoinPort = 7792

// initOptions are the flags of init.
type initOptions struct {
	cluster, witness, resource, disk, metadata, security, arbitration string
	nodes                                                             []string
	self                                                              string
	force                                                             bool
	invite                                                            inviteOptions
}

// inviteOptions are the flags that init and invite share.
type inviteOptions struct {
	port   int
	valid  time.Duration
	noWait bool
	root   string
}

func (o *inviteOptions) flags(c *cobra.Command) {
	c.Flags().IntVar(&o.port, "join-port", DefaultJoinPort, "TCP port where the new node comes (0: any)")
	c.Flags().DurationVar(&o.valid, "valid", 30*time.Minute, "how long a join code is good")
	c.Flags().StringVar(&o.root, "root", "", "read and write all files below this directory")
}

func (a *app) initCmd() *cobra.Command {
	var o initOptions
	c := &cobra.Command{
		Use: "init", Short: "begin a cluster: write configuration and secrets, invite the other nodes", Args: cobra.NoArgs,
		Long: "init writes the configuration and the secrets of this node, prints a join code\nfor every other one and waits until they came (hactl join CODE). It asks nothing.",
		Example: "  hactl init --cluster shop --node alpha=crossover:10.99.0.1,lan:192.168.1.11 \\\n" +
			"    --node beta=crossover:10.99.0.2,lan:192.168.1.12 --witness gamma=192.168.1.13 \\\n" +
			"    --resource pg --disk /dev/vg0/pg",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.init(cmd.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.cluster, "cluster", config.DefaultCluster, "name of the cluster")
	f.StringArrayVar(&o.nodes, "node", nil, "NAME=ADDRESS or NAME=PATH:ADDRESS,PATH:ADDRESS; give it twice")
	f.StringVar(&o.witness, "witness", "", "NAME=ADDRESS of the witness")
	f.StringVar(&o.arbitration, "arbitration", "", "witness or manual (default: by whether there is a witness)")
	f.StringVar(&o.resource, "resource", config.DefaultResource, "name of the resource")
	f.StringVar(&o.disk, "disk", "", "backing disk, the same path on both nodes")
	f.StringVar(&o.metadata, "metadata", config.Internal, "internal, or a path")
	f.StringVar(&o.security, "security", string(config.SecurityTLS), "tls or psk")
	f.StringVar(&o.self, "self", "", "which node this machine is (default: by host name and addresses)")
	f.BoolVar(&o.force, "force", false, "overwrite an existing configuration and its secrets")
	f.BoolVar(&o.invite.noWait, "no-wait", false, "invite nobody now; hactl invite NODE does it later")
	o.invite.flags(c)
	return c
}

func (a *app) init(ctx context.Context, o initOptions) error {
	text, err := o.configText()
	if err != nil {
		return err
	}
	cfg, err := config.Parse("(from the flags)", text)
	if err != nil {
		return err
	}
	if err := cfg.CheckImplemented(); err != nil {
		return err
	}
	self, err := selfNode(cfg, o.self)
	if err != nil {
		return err
	}
	if cfg.IsWitness(self) {
		return usage("run hactl init on "+cfg.Nodes[0].Name, "this machine is the witness; a cluster begins on a data node")
	}
	secrets, err := newSecrets(cfg)
	if err != nil {
		return err
	}
	own, err := secrets.bundleFor(cfg, text, self)
	if err != nil {
		return err
	}
	list := files(cfg, own, a.cfg)
	if err := writeFiles(o.invite.root, list, o.force); err != nil {
		return err
	}
	var others []string
	for _, n := range append(cfg.NodeNames(), witnessName(cfg)...) {
		if n != self {
			others = append(others, n)
		}
	}
	if a.output != "json" {
		for _, f := range list {
			fmt.Fprintf(a.env.Out, "wrote %s\n", place(o.invite.root, f.path))
		}
	}
	if o.invite.noWait {
		if a.output == "json" {
			return a.json(initDone{Node: self, Joined: []string{}})
		}
		return a.say("\nnext: hactl invite %s", strings.Join(others, "; hactl invite "))
	}
	return a.invite(ctx, cfg, secrets, text, self, others, o.invite)
}

func witnessName(cfg *config.Config) []string {
	if cfg.Witness == nil {
		return nil
	}
	return []string{cfg.Witness.Name}
}

// configText writes the configuration the flags describe.
func (o initOptions) configText() ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# hapair, the same file on every node. hactl config show prints every default.\ncluster: %s\nnodes:\n", yamlText(o.cluster))
	if len(o.nodes) != config.MaxDataNodes {
		return nil, usage("--node alpha=10.99.0.1 --node beta=10.99.0.2", "%d nodes given with --node; a pair has two", len(o.nodes))
	}
	for _, n := range o.nodes {
		name, paths, err := parseNode(n)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "  %s: {addresses: {%s}}\n", yamlText(name), strings.Join(paths, ", "))
	}
	if o.witness != "" {
		name, ip, ok := strings.Cut(o.witness, "=")
		if !ok {
			return nil, usage("--witness gamma=192.168.1.13", "witness %q is not NAME=ADDRESS", o.witness)
		}
		fmt.Fprintf(&b, "witness: {name: %s, address: %s}\n", yamlText(name), yamlText(ip))
	}
	if o.arbitration == string(config.ArbitrateFencing) {
		return nil, &config.NotImplementedError{What: "arbitration: fencing", Instead: "use --witness NAME=ADDRESS or --arbitration manual"}
	}
	if o.arbitration != "" {
		fmt.Fprintf(&b, "arbitration: %s\n", yamlText(o.arbitration))
	}
	if o.disk == "" {
		return nil, usage("--disk /dev/vg0/data", "no disk given")
	}
	if o.security != string(config.SecurityTLS) {
		fmt.Fprintf(&b, "security: {mode: %s}\n", yamlText(o.security))
	}
	fmt.Fprintf(&b, "resources:\n  %s:\n    volumes: [{disk: %s, metadata: %s}]\n", yamlText(o.resource), yamlText(o.disk), yamlText(o.metadata))
	return []byte(b.String()), nil
}

var (
	plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./-]*$`)
	yamlWords = regexp.MustCompile(`^(?i:true|false|yes|no|on|off|y|n|null|nan|inf)$`)
)

// yamlText writes a text plainly where that is safe, quoted where not.
func yamlText(s string) string {
	ip, err := netip.ParseAddr(s)
	if plainText.MatchString(s) && !yamlWords.MatchString(s) || err == nil && ip.Is4() {
		return s
	}
	return strconv.Quote(s)
}

// parseNode reads NAME=ADDRESS or NAME=PATH:ADDRESS,...; an IPv6 address may
// stand in brackets.
func parseNode(text string) (name string, paths []string, err error) {
	name, rest, ok := strings.Cut(text, "=")
	if !ok || name == "" || rest == "" {
		return "", nil, usage("--node alpha=crossover:10.99.0.1,lan:192.168.1.11", "node %q is not NAME=PATH:ADDRESS", text)
	}
	for _, item := range strings.Split(rest, ",") {
		path, ip := config.DefaultPathName, item
		if _, err := netip.ParseAddr(strings.Trim(item, "[]")); err != nil {
			p, rest, ok := strings.Cut(item, ":")
			if !ok {
				return "", nil, usage("--node "+name+"=crossover:10.99.0.1", "%q is neither ADDRESS nor PATH:ADDRESS", item)
			}
			path, ip = p, rest
		}
		paths = append(paths, fmt.Sprintf("%s: %s", yamlText(path), yamlText(strings.Trim(ip, "[]"))))
	}
	return name, paths, nil
}

func (a *app) inviteCmd() *cobra.Command {
	var o inviteOptions
	var self string
	c := &cobra.Command{
		Use: "invite NODE", Short: "print a join code for a node of the configuration and wait for it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(place(o.root, a.cfg))
			if err != nil {
				return fmt.Errorf("read configuration: %w", err)
			}
			cfg, err := config.Parse(a.cfg, text)
			if err != nil {
				return err
			}
			if self, err = selfNode(cfg, self); err != nil {
				return err
			}
			if cfg.Node(args[0]) == nil && !cfg.IsWitness(args[0]) || args[0] == self {
				return usage("name one of the other nodes in "+a.cfg, "%q cannot be invited from %q", args[0], self)
			}
			secrets, err := loadSecrets(cfg, o.root)
			if err != nil {
				return err
			}
			return a.invite(cmd.Context(), cfg, secrets, text, self, args, o)
		},
	}
	c.Flags().StringVar(&self, "self", "", "which node this machine is (default: by host name and addresses)")
	o.flags(c)
	return c
}

// initDone is the JSON that ends init and invite; before it comes one
// invitation per node.
type initDone struct {
	Node   string   `json:"node"`
	Joined []string `json:"joined"`
}

type invitation struct {
	Node      string    `json:"node"`
	Code      string    `json:"join_code"`
	Address   string    `json:"address"`
	ExpiresAt time.Time `json:"expires_at"`
}

// invite offers each node its code, all at once, and waits for all.
func (a *app) invite(ctx context.Context, cfg *config.Config, secrets clusterSecrets, text []byte, self string, nodes []string, o inviteOptions) error {
	type result struct {
		node string
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan result, len(nodes))
	started := 0
	wait := func() (errs error, joined []string) {
		joined = []string{}
		for range started {
			r := <-results
			if r.err != nil {
				errs = joinErrors(errs, fmt.Errorf("node %s did not join: %w", r.node, r.err))
				continue
			}
			joined = append(joined, r.node)
			if a.output != "json" {
				fmt.Fprintf(a.env.Out, "%s joined\n", r.node)
			}
		}
		return errs, joined
	}
	for i, node := range nodes {
		port := o.port
		if port != 0 {
			port += i
		}
		offer, err := a.offer(cfg, secrets, text, self, node, port, o.valid)
		if err != nil {
			cancel()
			failed, _ := wait()
			return joinErrors(err, failed)
		}
		started++
		go func() {
			_, err := offer.Serve(ctx)
			results <- result{node, err}
		}()
	}
	if a.output != "json" {
		fmt.Fprintf(a.env.Out, "waiting for %s; a code is good once and for %s (Ctrl-C ends)\n", strings.Join(nodes, " and "), o.valid)
	}
	err, joined := wait()
	cancel()
	if err != nil {
		return &apiv1.Problem{Code: apiv1.CodeTimeout, Text: err.Error(), Hint: "hactl invite NODE makes a new code"}
	}
	if a.output == "json" {
		return a.json(initDone{self, joined})
	}
	return a.say("\nnext, on each data node: hactl create-metadata RES && systemctl enable --now haagent")
}

func joinErrors(a, b error) error {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	return fmt.Errorf("%w; %w", a, b)
}

// offer listens for one node and prints its code.
func (a *app) offer(cfg *config.Config, secrets clusterSecrets, text []byte, self, node string, port int, valid time.Duration) (*peering.JoinOffer, error) {
	ip := meetingPoint(cfg, self, node)
	l, err := net.Listen("tcp", netip.AddrPortFrom(ip, uint16(port)).String())
	if err != nil {
		return nil, fmt.Errorf("listen for %s (is %s an address of this machine?): %w", node, ip, err)
	}
	bundle := func(name string) (peering.Bundle, error) {
		if name != node {
			return peering.Bundle{}, fmt.Errorf("this code is for node %q, not for %q; use hactl join --node %s", node, name, node)
		}
		return secrets.bundleFor(cfg, text, node)
	}
	offer, err := peering.NewJoinOffer(l, l.Addr().String(), valid, bundle, zap.NewNop())
	if err != nil {
		return nil, joinErrors(err, l.Close())
	}
	if a.output == "json" {
		return offer, a.json(invitation{node, offer.Code.String(), offer.Code.Address, time.Now().Add(valid)})
	}
	return offer, a.say("\non %s run:\n  hactl join --node %s %s\n", node, node, offer.Code)
}

// meetingPoint chooses this node's address that the other most likely reaches:
// for the peer the first path, for the witness the one nearest to its address.
func meetingPoint(cfg *config.Config, self, other string) netip.Addr {
	mine := cfg.Node(self).Addresses
	best := mine[0].IP
	if !cfg.IsWitness(other) {
		return best
	}
	common := -1
	for _, a := range mine {
		if n := commonBits(a.IP, cfg.Witness.Address); n > common {
			best, common = a.IP, n
		}
	}
	return best
}

// commonBits counts leading bits two addresses share; none between families.
func commonBits(a, b netip.Addr) int {
	a, b = a.Unmap(), b.Unmap()
	if a.BitLen() != b.BitLen() {
		return -1
	}
	for n := a.BitLen(); n > 0; n-- {
		if p, err := a.Prefix(n); err == nil && p.Contains(b.WithZone("")) {
			return n
		}
	}
	return 0
}
