package commands

import (
	"fmt"
	"strings"

	"hapair/agent/apiv1"
)

// verifyListed is how many of the ranges found are in the human status.
const verifyListed = 4

// renderVerify draws the verify that runs, and what the last one found until it
// is repaired.
func renderVerify(b *strings.Builder, r *apiv1.Resource, s style) {
	v := &r.Verify
	open := v.DifferingBytes + v.UnreadableBytes - v.RepairedBytes
	switch v.State {
	case apiv1.VerifyRunning, apiv1.VerifyStopped:
		renderVerifyProgress(b, v, s)
	case apiv1.VerifyFailed:
		fmt.Fprintf(b, "  verify %s: %s\n", s.bad("failed"), clean(v.Because))
	}
	if v.RepairedBytes > 0 {
		fmt.Fprintf(b, "  verify repaired %s\n", bytesText(v.RepairedBytes))
	}
	if open <= 0 {
		return
	}
	fmt.Fprintf(b, "  %s verify found %s not equal", s.bad("COPIES DIFFER:"), bytesText(open))
	listed := 0
	for _, d := range v.Found {
		if d.Repaired {
			continue
		}
		if listed++; listed > verifyListed {
			b.WriteString(", ...")
			break
		}
		sep := ","
		if listed == 1 {
			sep = ":"
		}
		fmt.Fprintf(b, "%s volume %d %d+%d %s", sep, d.Volume, d.Offset, d.Length, rangeWord(d.Kind))
	}
	fmt.Fprintf(b, "\n    try: hactl verify %s --repair\n", clean(r.Name))
}

func rangeWord(kind string) string {
	switch kind {
	case apiv1.RangeUnreadableHere:
		return "cannot be read here"
	case apiv1.RangeUnreadablePeer:
		return "cannot be read at the peer"
	}
	return clean(kind)
}

func renderVerifyProgress(b *strings.Builder, v *apiv1.Verify, s style) {
	if v.TotalBytes > 0 {
		percent := 100 * float64(v.DoneBytes) / float64(v.TotalBytes)
		if v.DoneBytes < v.TotalBytes {
			percent = min(percent, 99.9)
		}
		fmt.Fprintf(b, "  verify  %s %.1f %%  %s of %s", bar(v.DoneBytes, v.TotalBytes, 24), percent, bytesText(v.DoneBytes), bytesText(v.TotalBytes))
	} else {
		b.WriteString("  verify")
	}
	switch {
	case v.State == apiv1.VerifyStopped:
		fmt.Fprintf(b, "  %s", s.warn("stopped"))
	case v.Waits != "":
		fmt.Fprintf(b, "  %s", s.warn("waits: "+clean(v.Waits)))
	case v.ETAS < 0:
		fmt.Fprintf(b, "  %s", rateText(float64(v.RateBytesPerS)))
	default:
		fmt.Fprintf(b, "  %s  ETA %s", rateText(float64(v.RateBytesPerS)), secondsText(v.ETAS))
	}
	if v.Repair {
		b.WriteString("  repairs")
	}
	b.WriteByte('\n')
}
