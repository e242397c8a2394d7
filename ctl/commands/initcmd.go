package commands

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hapair/agent/config"
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
	var others []string
	for _, n := range append(cfg.NodeNames(), witnessName(cfg)...) {
		if n != self {
			others = append(others, n)
		}
	}
	inv := invite{cfg: cfg, secrets: secrets, text: text, self: self, nodes: others, valid: o.invite.valid}
	if !o.invite.noWait { // before anything is written: a wrong address leaves nothing behind
		if err := inv.listen(o.invite.port); err != nil {
			return err
		}
	}
	if err := a.writeOwn(files(cfg, own, a.cfg), o); err != nil {
		return joinErrors(err, inv.close())
	}
	if o.invite.noWait {
		if a.output == "json" {
			return a.json(initDone{Node: self, Joined: []string{}})
		}
		return a.say("\nnext: hactl invite %s", strings.Join(others, "; hactl invite "))
	}
	return a.invite(ctx, &inv)
}

func (a *app) writeOwn(list []secretFile, o initOptions) error {
	if err := writeFiles(o.invite.root, list, o.force); err != nil {
		return err
	}
	if a.output != "json" {
		for _, f := range list {
			fmt.Fprintf(a.env.Out, "wrote %s\n", place(o.invite.root, f.path)) //nolint:errcheck // the file is there, told or not
		}
	}
	return nil
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
		return nil, &config.NotImplementedError{What: "arbitration: fencing of hactl init, which cannot know the fence devices",
			Instead: "leave it out, then write arbitration: fencing and the section fencing into the file"}
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
