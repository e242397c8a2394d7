package commands

import (
	"fmt"
	"strings"
	"time"

	"hapair/agent/apiv1"
)

// renderSides draws what each node of a split brain has, and how it is kept.
func renderSides(b *strings.Builder, sides []apiv1.Side, s style) {
	for i := range sides {
		x, other := &sides[i], &sides[(i+1)%len(sides)]
		fmt.Fprintf(b, "  %s  %s\n", s.bold(clean(x.Node)), sideText(x, clean(other.Node)))
		for j := range x.Volumes {
			if v := &x.Volumes[j]; len(x.Volumes) > 1 || v.Generation != "" {
				fmt.Fprintf(b, "    volume %d: %s\n", v.Number, sideVolumeText(v))
			}
		}
		fmt.Fprintf(b, "    to keep that, run on %s, which gives up its own: %s\n", clean(other.Node), clean(strings.Join(x.Keep, ", then ")))
		if x.Loses != "" {
			fmt.Fprintf(b, "    that loses %s\n", clean(x.Loses))
		}
	}
}

// renderSplit draws the same in a line for each side, for the status.
func renderSplit(b *strings.Builder, r *apiv1.Resource, s style) {
	if !r.SplitBrain {
		return
	}
	fmt.Fprintf(b, "  %s both nodes went on without the other; hactl explain %s tells what each has, and how to keep it\n", s.bad("SPLIT BRAIN:"), clean(r.Name))
	for i := range r.Sides {
		other := &r.Sides[(i+1)%len(r.Sides)]
		fmt.Fprintf(b, "    %s  %s\n", s.bold(clean(r.Sides[i].Node)), sideText(&r.Sides[i], clean(other.Node)))
	}
}

// sideText is one side in a sentence.
func sideText(x *apiv1.Side, other string) string {
	has := "it was not heard what it has"
	switch {
	case x.OnlyBytes == apiv1.UnknownBytes && len(x.Volumes) > 0:
		has = "has data that " + other + " may lack; how much is not known, for the two parted before they began to count"
	case x.OnlyBytes != apiv1.UnknownBytes:
		has = fmt.Sprintf("has at most %s that %s may lack", bytesText(x.OnlyBytes), other)
		if x.Since != nil {
			has += ", since " + x.Since.Format(time.DateTime) + " UTC by its clock"
		}
	}
	role := clean(x.Role)
	if x.WasPrimary {
		role += ", Primary when the two parted"
	}
	return fmt.Sprintf("%s, token %d: %s", role, x.Token, has)
}

func sideVolumeText(v *apiv1.SideVolume) string {
	text := fmt.Sprintf("%d blocks, %s", v.DirtyBlocks, bytesText(v.DirtyBytes))
	if v.Since == nil {
		text += ", since when is not known"
	} else {
		text += ", since " + v.Since.Format(time.DateTime) + " UTC"
	}
	text += "; generation " + clean(v.Generation) + " from " + clean(v.Base)
	if !v.Counted {
		text += "; more may differ"
	}
	return text
}
