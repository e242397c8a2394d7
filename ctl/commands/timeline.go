package commands

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
)

func (a *app) timelineCmd() *cobra.Command {
	var since, until string
	var q apiv1.TimelineQuery
	c := &cobra.Command{
		Use: "timeline [RES]", Short: "tell what happened on all nodes as one story", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.resourceArg,
		Long: "timeline tells what every node recorded, in an order that does not depend on\ntheir clocks: what a node did after it had heard of something is told after it.\n" +
			"Each node keeps what the others told, so one that is gone is told of as well, to\nthe last that was heard of it. Times are each node's own.\n\n" +
			"--since and --until take a span back from now (10m, 2h), or a time by this\nnode's clock (14:05, \"2026-01-31 14:05:10\", 2026-01-31T14:05:10Z).",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				q.Resource = args[0]
			}
			var err error
			now := time.Now()
			if q.Since, err = timeFlag("since", since, now); err != nil {
				return err
			}
			if q.Until, err = timeFlag("until", until, now); err != nil {
				return err
			}
			t, err := a.client().Timeline(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.show(t, renderTimeline(&t, a.style()))
		},
	}
	c.Flags().StringVar(&since, "since", "", "from then on (default: all that is kept)")
	c.Flags().StringVar(&until, "until", "", "up to then")
	c.Flags().StringVar(&q.Node, "node", "", "only what this node recorded")
	a.completeNodes(c, "node")
	return c
}

// timeFlag reads a span back from now, or a time; the zero time when there is
// none.
func timeFlag(name, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, form := range []string{"15:04:05", "15:04"} {
		if t, err := time.Parse(form, text); err == nil {
			y, m, d := now.Date()
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, usage("--"+name+" 10m, or --"+name+" '2026-01-31 14:05'", "--%s %q is neither a span nor a time", name, text)
}

// skewShown is from when on a clock is called wrong, in milliseconds.
const skewShown = 200

func renderTimeline(t *apiv1.Timeline, s style) string {
	var b strings.Builder
	nodes, kinds := 0, 0
	for i := range t.Entries {
		nodes, kinds = max(nodes, len(t.Entries[i].Node)), max(kinds, len(t.Entries[i].Kind))
	}
	gaps, day := t.Gaps, ""
	for i := range t.Entries {
		e := &t.Entries[i]
		for len(gaps) > 0 && gaps[0].Before <= e.HLC {
			fmt.Fprintf(&b, "  %s\n", s.warn(gapText(&gaps[0])))
			gaps = gaps[1:]
		}
		if d := e.Time.Format(time.DateOnly); d != day {
			day = d
			fmt.Fprintf(&b, "%s UTC\n", s.bold(d))
		}
		what := entryText(e)
		if e.Kind == apiv1.EventProblem {
			what = s.bad(what)
		}
		fmt.Fprintf(&b, "  %s  %s  %s  %s\n", e.Time.Format("15:04:05.000"), pad(clean(e.Node), nodes), s.dim(pad(clean(e.Kind), kinds)), what)
	}
	if len(t.Entries) == 0 {
		b.WriteString("nothing is recorded of that\n")
	}
	for i := range t.Sources {
		n := &t.Sources[i]
		if n.SkewKnown && (n.SkewMS >= skewShown || n.SkewMS <= -skewShown) {
			fmt.Fprintf(&b, "%s the clock of %s is %s that of %s; the order above is that of cause and effect\n", s.warn("clocks:"), clean(n.Node), skewText(n.SkewMS), clean(t.Node))
		}
	}
	for _, m := range t.Missing {
		fmt.Fprintf(&b, "%s %s\n", s.warn("missing:"), clean(m))
	}
	return b.String()
}

// entryText is what happened, and to which resource.
func entryText(e *apiv1.TimelineEntry) string {
	if e.Resource == "" {
		return clean(e.Text)
	}
	return clean(e.Resource) + ": " + clean(e.Text)
}

func gapText(g *apiv1.TimelineGap) string {
	return fmt.Sprintf("... numbers %d to %d of %s are missing", g.From, g.To, clean(g.Node))
}

func skewText(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if d < 0 {
		return (-d).String() + " behind"
	}
	return d.String() + " ahead of"
}
