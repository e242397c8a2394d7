package commands

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/agent/peering"
)

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
			if cfg.IsWitness(self) {
				return usage(fmt.Sprintf("hactl invite %s on %s", args[0], cfg.Nodes[0].Name),
					"%s is the witness, and a data node invites", self)
			}
			if cfg.Node(args[0]) == nil && !cfg.IsWitness(args[0]) || args[0] == self {
				return usage("name one of the other nodes in "+a.cfg, "%q cannot be invited from %q", args[0], self)
			}
			secrets, err := loadSecrets(cfg, o.root)
			if err != nil {
				return err
			}
			inv := invite{cfg: cfg, secrets: secrets, text: text, self: self, nodes: args, valid: o.valid}
			if err := inv.listen(o.port); err != nil {
				return err
			}
			return a.invite(cmd.Context(), &inv)
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

// invite is what init and invite offer to other nodes.
type invite struct {
	cfg       *config.Config
	secrets   clusterSecrets
	text      []byte // the configuration
	self      string
	nodes     []string
	valid     time.Duration
	listeners []net.Listener // one for each node
}

// listen opens a port for each node, from port on; all or none.
func (v *invite) listen(port int) error {
	for _, node := range v.nodes {
		ip := meetingPoint(v.cfg, v.self, node)
		l, err := net.Listen("tcp", netip.AddrPortFrom(ip, uint16(port)).String())
		if err != nil {
			return joinErrors(fmt.Errorf("listen for %s (is %s an address of this machine?): %w", node, ip, err), v.close())
		}
		v.listeners = append(v.listeners, l)
		if port != 0 {
			port++
		}
	}
	return nil
}

func (v *invite) close() (err error) {
	for _, l := range v.listeners {
		err = joinErrors(err, l.Close())
	}
	v.listeners = nil
	return err
}

// invite offers each node its code, all at once, and waits for all.
func (a *app) invite(ctx context.Context, v *invite) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	offers := make([]*peering.JoinOffer, len(v.nodes))
	for i := range v.nodes {
		offer, err := a.offer(v, i)
		if err != nil {
			return joinErrors(err, v.close())
		}
		offers[i] = offer
	}
	results := make(chan joinResult, len(offers))
	for i, offer := range offers {
		go func() {
			_, err := offer.Serve(ctx)
			results <- joinResult{v.nodes[i], err}
		}()
	}
	if a.output != "json" {
		fmt.Fprintf(a.env.Out, "waiting for %s; a code is good once and for %s (Ctrl-C ends)\n", strings.Join(v.nodes, " and "), v.valid) //nolint:errcheck // the offers stand, told or not
	}
	joined, err := a.awaitJoins(results, len(offers))
	if err != nil {
		return &apiv1.Problem{Code: apiv1.CodeTimeout, Text: err.Error(), Hint: "hactl invite NODE makes a new code"}
	}
	if a.output == "json" {
		return a.json(initDone{v.self, joined})
	}
	return a.say("\nnext, on each data node: hactl create-metadata RES && systemctl enable --now hapair")
}

type joinResult struct {
	node string
	err  error
}

func (a *app) awaitJoins(results <-chan joinResult, n int) (joined []string, errs error) {
	joined = []string{}
	for range n {
		r := <-results
		if r.err != nil {
			errs = joinErrors(errs, fmt.Errorf("node %s did not join: %w", r.node, r.err))
			continue
		}
		joined = append(joined, r.node)
		if a.output != "json" {
			fmt.Fprintf(a.env.Out, "%s joined\n", r.node) //nolint:errcheck // it has joined, told or not
		}
	}
	return joined, errs
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

// offer makes the code of one node and prints it. The listener is the offer's
// from then on.
func (a *app) offer(v *invite, i int) (*peering.JoinOffer, error) {
	node, l := v.nodes[i], v.listeners[i]
	bundle := func(name string) (peering.Bundle, error) {
		if name != node {
			return peering.Bundle{}, fmt.Errorf("this code is for node %q, not for %q; use hactl join --node %s", node, name, node)
		}
		return v.secrets.bundleFor(v.cfg, v.text, node)
	}
	offer, err := peering.NewJoinOffer(l, l.Addr().String(), v.valid, bundle, zap.NewNop())
	if err != nil {
		return nil, err
	}
	if a.output == "json" {
		return offer, a.json(invitation{node, offer.Code.String(), offer.Code.Address, time.Now().Add(v.valid)})
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
