package commands

import (
	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
)

func (a *app) replaceCmd() *cobra.Command {
	var req apiv1.ReplaceRequest
	c := &cobra.Command{
		Use: "replace NODE", Short: "have a new machine take the place of a node whose machine is gone for good",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.nodeArg,
		Long: "replace is run on a node that stays. From then on the old machine of NODE is refused\n" +
			"by every node, should it come back with its ledger and its copy of the data, and the\n" +
			"copy counts as current no more. A new machine of the same name joins with an empty\n" +
			"state directory and new metadata, and is filled:\n\n" +
			"  here:    hactl replace NODE --i-have-checked, then hactl invite NODE\n" +
			"  there:   hactl join CODE, hactl create-metadata RES, systemctl enable --now hapair\n\n" +
			"A witness needs no metadata. Services go on meanwhile.",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Node = args[0]
			return a.changed(a.client().Replace(cmd.Context(), req))
		},
	}
	c.Flags().BoolVar(&req.Checked, "i-have-checked", false, "the old machine is off, and stays so")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the record")
	return c
}
