package commands

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
)

func (a *app) setCmd() *cobra.Command {
	return &cobra.Command{
		Use: "set RES KEY=VALUE...", Short: "change how long to wait, and for what, while the resource runs",
		Long: "set changes settings of a resource on this node, until its agent starts again:\n" +
			"on_no_quorum (suspend, error), disk_timeout and peer_timeout (a time, or 0 to\n" +
			"wait for ever), protocol (A, B, C: see docs/safety.md for what each may lose;\n" +
			"it counts once both nodes are set to it). What lasts belongs into the configuration file, on both nodes.",
		Args: cobra.MinimumNArgs(2), ValidArgsFunction: a.resourceArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			var req apiv1.SetRequest
			keys := map[string]*string{"on_no_quorum": &req.OnNoQuorum, "disk_timeout": &req.DiskTimeout, "peer_timeout": &req.PeerTimeout, "protocol": &req.Protocol}
			for _, arg := range args[1:] {
				key, value, ok := strings.Cut(arg, "=")
				to := keys[key]
				if !ok || to == nil || value == "" {
					return &usageError{text: fmt.Sprintf("%q is not a setting; one looks like on_no_quorum=error, disk_timeout=10s or peer_timeout=10s", arg)}
				}
				*to = value
			}
			return a.changed(a.client().Change(cmd.Context(), args[0], apiv1.VerbSet, req))
		},
	}
}
