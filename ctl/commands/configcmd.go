package commands

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
	"hapair/agent/config"
)

func (a *app) configCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "check and show the configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.configCheckCmd(), a.configShowCmd(), a.configApplyCmd())
	return c
}

func (a *app) configApplyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "apply", Short: "have this node's agent take over other addresses of members, and another witness", Args: cobra.NoArgs,
		Long: "The agent of this node reads its configuration file again. Addresses of other\n" +
			"members are taken over at once. A witness that was added, taken away or exchanged\n" +
			"counts, or counts no more, when this was said on both data nodes; it can be taken\n" +
			"back as long as it is not done, and goes on after a crash. Nothing is interrupted.\n" +
			"What else has changed is refused, and takes a restart of the agent. To be run on\n" +
			"each node.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.changed(a.client().ConfigApply(cmd.Context(), apiv1.ConfigApplyRequest{}))
		},
	}
}

// checkReport is the JSON of config check.
type checkReport struct {
	File     string        `json:"file"`
	OK       bool          `json:"ok"`
	Problems []filePlace   `json:"problems"`
	NotBuilt []string      `json:"not_implemented"`
	Problem  apiv1.Problem `json:"error,omitzero"` // the file could not be read
}

type filePlace struct {
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Text   string `json:"text"`
	Hint   string `json:"hint"`
}

func (a *app) configCheckCmd() *cobra.Command {
	var system bool
	var node string
	c := &cobra.Command{
		Use: "check [FILE]", Short: "read the configuration and say everything that is wrong with it", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := a.cfg
			if len(args) > 0 {
				file = args[0]
			}
			return a.checkConfig(cmd.Context(), file, system, node)
		},
	}
	c.Flags().BoolVar(&system, "system", false, "also ask this machine: are the disks there, and free, and the OCF agents as they should be? (not beside a running agent)")
	c.Flags().StringVar(&node, "node", "", "which node this machine is (default: by host name and addresses)")
	return c
}

func (a *app) checkConfig(ctx context.Context, file string, system bool, node string) error {
	cfg, err := config.Load(file)
	if err == nil && system {
		if node, err = selfNode(cfg, node); err == nil {
			err = cfg.CheckSystem(ctx, node)
		}
	}
	var notBuilt error
	if err == nil {
		notBuilt = cfg.CheckImplemented()
	}
	if a.output != "json" {
		if err := errors.Join(err, notBuilt); err != nil {
			return err
		}
		return a.say("%s is in order", file)
	}
	r := checkReport{File: file, OK: err == nil && notBuilt == nil, Problems: []filePlace{}, NotBuilt: []string{}}
	var bad config.Errors
	switch {
	case errors.As(err, &bad):
		for _, e := range bad {
			r.Problems = append(r.Problems, filePlace{e.Line, e.Column, e.Text, e.Hint})
		}
	case err != nil:
		r.Problem, _ = judge(err)
	}
	if joined, ok := notBuilt.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			r.NotBuilt = append(r.NotBuilt, e.Error())
		}
	}
	if werr := a.json(r); werr != nil {
		return werr
	}
	return silent(errors.Join(err, notBuilt))
}

// silentError has been shown already; only its exit code is left to give.
type silentError struct{ err error }

// Error returns the text of what was shown.
func (e *silentError) Error() string { return e.err.Error() }

// Unwrap returns what was shown.
func (e *silentError) Unwrap() error { return e.err }

func silent(err error) error {
	if err == nil {
		return nil
	}
	return &silentError{err}
}

func (a *app) configShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show [FILE]", Short: "show the configuration in effect, defaults written out and marked", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := a.cfg
			if len(args) > 0 {
				file = args[0]
			}
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			text := cfg.Render()
			return a.show(struct {
				File      string   `json:"file"`
				Effective string   `json:"effective_yaml"`
				Defaults  []string `json:"defaults"`
			}{file, text, cfg.Defaults()}, text)
		},
	}
}

// selfNode returns the given node's name after checking it, or finds this
// machine in the configuration.
func selfNode(cfg *config.Config, given string) (string, error) {
	if given != "" {
		if cfg.Node(given) == nil && !cfg.IsWitness(given) {
			return "", usage("", "node %q is not in the configuration", given)
		}
		return given, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("ask for the host name: %w", err)
	}
	name, err := cfg.Self(host, localAddrs())
	if err != nil {
		return "", usage("name it with --node", "%v", err)
	}
	return name, nil
}

// localAddrs returns what addresses this machine has; none when it cannot tell.
func localAddrs() []netip.Addr {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil && !p.Addr().IsLoopback() {
			out = append(out, p.Addr())
		}
	}
	return out
}

// place puts a path below a root directory; "" and "/" change nothing.
func place(root, path string) string {
	if root == "" {
		return path
	}
	return filepath.Join(root, path)
}
