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

// renderWriteOut draws how the agent would fare when memory is short.
func renderWriteOut(w *apiv1.WriteOut, s style) string {
	if w.Because != "" {
		return fmt.Sprintf("memory  %s\n", s.bad("not known: "+clean(w.Because)))
	}
	word := s.good("ready for when it is short")
	if !w.Ready {
		word = s.bad("not ready for when it is short")
	}
	killer := "the kernel ends others first"
	if w.OOMScoreAdj > -1000 {
		killer = fmt.Sprintf("the kernel may end the agent (oom_score_adj %d)", w.OOMScoreAdj)
	}
	return fmt.Sprintf("memory  %s: %d of %d threads never wait for writes, %s stay in memory, %s\n", word, w.Flushers, w.Threads, bytesText(w.LockedBytes), killer)
}
