package commands

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
)

// splitBrainCmd is about what this node gave up in a split brain.
func (a *app) splitBrainCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "split-brain", Short: "see, put back or drop what this node gave up in a split brain", Args: cobra.NoArgs,
		Long: "When this node gives up its side of a split brain, every block is saved in an image\n" +
			"before it is overwritten. Until the image is dropped, what was given up can be\n" +
			"looked at, and put back.",
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	list := &cobra.Command{
		Use: "list", Short: "list what is kept on this node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.showKept(cmd, "") },
	}
	show := &cobra.Command{
		Use: "show RES", Short: "show what is kept of a resource on this node", Args: cobra.ExactArgs(1), ValidArgsFunction: a.resourceArg,
		RunE: func(cmd *cobra.Command, args []string) error { return a.showKept(cmd, args[0]) },
	}
	c.AddCommand(list, show,
		a.splitVerb(apiv1.SplitMount, "offer what was given up as read-only devices", "mount offers it as devices, one for each volume. Mount them with\n-o ro; a journal cannot be replayed on them: ext4 wants -o ro,noload."),
		a.splitVerb(apiv1.SplitUnmount, "withdraw these devices", ""),
		a.splitVerb(apiv1.SplitUndo, "put it back on this node's disks, and stand alone with it", "undo takes this node's copy out of the in-sync set, and puts back what it gave up.\nThe two are in a split brain again then, and the other side can be chosen: hactl\nexplain tells how. A power cut on the way is no harm."),
		a.splitVerb(apiv1.SplitDrop, "free the space it takes; it cannot be put back any more", ""))
	return c
}

func (a *app) splitVerb(action, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: action + " RES", Short: short, Long: long, Args: cobra.ExactArgs(1), ValidArgsFunction: a.resourceArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changed(a.client().Change(cmd.Context(), args[0], apiv1.VerbSplitBrain, apiv1.SplitBrainRequest{Action: action}))
		},
	}
}

// showKept shows the images of one resource, or of all.
func (a *app) showKept(cmd *cobra.Command, only string) error {
	st, err := a.client().Status(cmd.Context())
	if err != nil {
		return err
	}
	kept := map[string][]apiv1.KeptImage{}
	var b strings.Builder
	for i := range st.Resources {
		r := &st.Resources[i]
		if only != "" && r.Name != only || len(r.Kept) == 0 {
			continue
		}
		kept[r.Name] = r.Kept
		fmt.Fprintf(&b, "%s on %s\n", a.style().bold(clean(r.Name)), clean(st.Node))
		renderKept(&b, r, a.style())
	}
	switch {
	case only != "" && st.Resource(only) == nil:
		return &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("there is no resource %q on %s", only, st.Node), Hint: "hactl status"}
	case len(kept) == 0:
		b.WriteString("nothing that was given up in a split brain is kept on this node\n")
	}
	return a.show(kept, b.String())
}

// renderKept draws a line for each volume of which something is kept.
func renderKept(b *strings.Builder, r *apiv1.Resource, s style) {
	for i := range r.Kept {
		k := &r.Kept[i]
		fmt.Fprintf(b, "  %s volume %d, given up to %s at %s UTC: %s in %d blocks, %s; generation %s",
			s.warn("KEPT:"), k.Volume, clean(k.Peer), k.GivenUp.Format(time.DateTime), bytesText(k.UsedBytes), k.KeptBlocks, keptState(k, s), clean(k.Generation))
		if k.Since != nil {
			fmt.Fprintf(b, ", written since %s UTC", k.Since.Format(time.DateTime))
		}
		if k.Device != "" {
			fmt.Fprintf(b, "; offered as %s", clean(k.Device))
		}
		b.WriteByte('\n')
	}
	if len(r.Kept) > 0 {
		fmt.Fprintf(b, "    to look at it: hactl split-brain mount %s; to put it back: undo; to free the space: drop\n", clean(r.Name))
	}
}

func keptState(k *apiv1.KeptImage, s style) string {
	switch k.State {
	case "keeping":
		return "complete"
	case "undoing":
		return s.warn("being put back")
	case "undone":
		return "put back"
	default:
		return s.bad("incomplete") + " (" + clean(k.Why) + ")"
	}
}
