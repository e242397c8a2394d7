package commands

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/agent/peering"
)

func (a *app) joinCmd() *cobra.Command {
	var node, root string
	var force bool
	c := &cobra.Command{
		Use: "join CODE", Short: "fetch configuration and secrets of a cluster with a join code", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// A code may be typed in groups.
			return a.join(cmd.Context(), strings.Join(args, ""), node, root, force)
		},
	}
	c.Flags().StringVar(&node, "node", "", "which node this machine is (default: its host name)")
	c.Flags().StringVar(&root, "root", "", "write all files below this directory")
	c.Flags().BoolVar(&force, "force", false, "overwrite an existing configuration and its secrets")
	return c
}

func (a *app) join(ctx context.Context, text, node, root string, force bool) error {
	code, err := peering.ParseJoinCode(text)
	if err != nil {
		return usage("the code is what hactl init printed on the other node", "join code: %v", err)
	}
	if node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("ask for the host name: %w", err)
		}
		node, _, _ = strings.Cut(host, ".")
	}
	// What would be overwritten is found before the code is spent.
	if _, err := os.Lstat(place(root, a.cfg)); err == nil && !force {
		return usage("--force overwrites it, and cuts this node off from its old cluster", "%s is there already", place(root, a.cfg))
	}
	bundle, err := peering.Join(ctx, code, node)
	if err != nil {
		return joinProblem(err)
	}
	cfg, err := config.Parse("(from the other node)", bundle.Config)
	if err != nil {
		return err
	}
	if cfg.Node(node) == nil && !cfg.IsWitness(node) {
		return usage("--node "+strings.Join(cfg.NodeNames(), " or --node "), "node %q is not in the configuration that came", node)
	}
	list := files(cfg, bundle, a.cfg)
	if err := writeFiles(root, list, force); err != nil {
		return err
	}
	if a.output == "json" {
		return a.json(struct {
			Node    string `json:"node"`
			Cluster string `json:"cluster"`
		}{node, cfg.Cluster})
	}
	for _, f := range list {
		fmt.Fprintf(a.env.Out, "wrote %s\n", place(root, f.path)) //nolint:errcheck // the file is there, told or not
	}
	next := "hactl create-metadata RES && systemctl enable --now hapair"
	if cfg.IsWitness(node) {
		next = "systemctl enable --now hapair-witness"
	}
	return a.say("this machine is node %s of cluster %s\nnext: %s", node, cfg.Cluster, next)
}

// joinProblem says why a join failed, with what helps.
func joinProblem(err error) error {
	switch {
	case errors.Is(err, peering.ErrJoinPin):
		return &apiv1.Problem{Code: apiv1.CodeForbidden, Text: err.Error(), Hint: "somebody else answers on that address, or the code is from another run of hactl init"}
	case errors.Is(err, peering.ErrJoinRefused):
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: "hactl invite NODE on the other node makes a new code; --node names this machine"}
	}
	return &apiv1.Problem{Code: apiv1.CodeInternal, Text: err.Error(), Hint: "is hactl init or hactl invite still running on the other node, and does a firewall let its port through?"}
}
