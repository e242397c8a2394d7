package commands

import (
	"fmt"
	"strings"
	"time"

	"hapair/agent/apiv1"
)

// renderPaths draws a line for each path to each member: what it is good for, and
// what went over it.
func renderPaths(st *apiv1.Status, s style) string {
	var b strings.Builder
	for i := range st.Members {
		for j := range st.Members[i].Paths {
			p := &st.Members[i].Paths[j]
			fmt.Fprintf(&b, "path %s to %s  %s", s.bold(clean(p.Name)), clean(st.Members[i].Name), heartText(p, s))
			if p.Streams != nil {
				renderStreams(&b, p.Streams, s)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func heartText(p *apiv1.Path, s style) string {
	if p.State != apiv1.MemberAlive {
		return s.bad("heartbeat " + clean(p.State))
	}
	return "heartbeat " + microsText(p.RTTUS)
}

func renderStreams(b *strings.Builder, x *apiv1.Streams, s style) {
	switch x.Use {
	case "":
	case apiv1.PathGood:
		fmt.Fprintf(b, "  %s for %s", s.good(x.Use), secondsText(x.SinceS))
	default:
		fmt.Fprintf(b, "  %s for %s", s.bad(clean(x.Use)), secondsText(x.SinceS))
	}
	if x.RoundTripUS > 0 {
		fmt.Fprintf(b, "  full frames %s", microsText(x.RoundTripUS))
	}
	if x.Use != "" {
		fmt.Fprintf(b, "  lost %d times, mirror came %d times", x.Losses, x.Moves)
	}
	fmt.Fprintf(b, "  %d streams, %s out, %s in, %d retransmits", x.Live, bytesText(x.BytesOut), bytesText(x.BytesIn), x.Retransmits)
	if x.HoldMS > 0 {
		fmt.Fprintf(b, "\n  not used for another %s", (time.Duration(x.HoldMS) * time.Millisecond).Round(100*time.Millisecond))
	}
	if x.Because != "" && x.Use != apiv1.PathGood {
		fmt.Fprintf(b, "\n  because: %s", clean(x.Because))
	}
}
