package commands

import (
	"strings"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
)

// notBuiltCmds answer for what the documents describe and nobody built yet.
func (a *app) notBuiltCmds() []*cobra.Command {
	var out []*cobra.Command
	for _, x := range []struct{ use, short string }{
		{"detach RES", "let go of a disk"},
		{"snapshot", "snapshots of a volume"},
		{"top", "live figures"},
		{"doctor", "look for what is wrong"},
	} {
		out = append(out, a.notBuilt(x.use, x.short))
	}
	return out
}

func (a *app) notBuilt(use, short string) *cobra.Command {
	name, _, _ := strings.Cut(use, " ")
	return &cobra.Command{
		Use: use, Short: short + " (not implemented)", FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		Args: cobra.ArbitraryArgs,
		RunE: func(*cobra.Command, []string) error {
			return &apiv1.Problem{Code: apiv1.CodeNotImplemented, Text: name + ": not implemented", Hint: apiv1.NotBuilt[name]}
		},
	}
}
