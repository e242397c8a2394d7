package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
	"hapair/ctl/client"
)

func (a *app) statusCmd() *cobra.Command {
	var watch, verbose bool
	c := &cobra.Command{
		Use: "status [RES]", Short: "show resources, copies, services and members",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.resourceArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch {
				return untilEnded(cmd.Context(), a.watch(cmd.Context(), args))
			}
			st, err := a.status(cmd.Context(), args)
			if err != nil {
				return err
			}
			text := renderStatus(&st, a.style())
			if verbose {
				text += renderPaths(&st, a.style()) + renderWatchdog(st.Watchdog, a.style()) + renderWriteOut(&st.WriteOut, a.style())
			}
			return a.show(st, text)
		},
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "also each path: what it is good for, and what went over it; and how the agent would fare when memory is short")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "follow events and draw again; with --output json one status per line")
	return c
}

// status asks, and keeps one resource when one is named.
func (a *app) status(ctx context.Context, args []string) (apiv1.Status, error) {
	st, err := a.client().Status(ctx)
	if err != nil || len(args) == 0 {
		return st, err
	}
	r := st.Resource(args[0])
	if r == nil {
		return st, &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("no resource %q on this node", args[0]), Hint: "hactl status"}
	}
	st.Resources = []apiv1.Resource{*r}
	return st, nil
}

// untilEnded is the error of a command that follows until the user ends it: that it
// was ended is none.
func untilEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Pace of a watch: rates and leases age even when nothing happens.
const (
	watchRefresh = time.Second
	watchRetry   = time.Second
)

// watch draws at every event and at least once per watchRefresh. On a terminal
// it redraws in place; elsewhere it prints only when an event came.
func (a *app) watch(ctx context.Context, args []string) error {
	live := a.env.Terminal && a.output != "json"
	if live {
		fmt.Fprint(a.env.Out, "\x1b[?1049h\x1b[?25l")       //nolint:errcheck // what is drawn next finds out
		defer fmt.Fprint(a.env.Out, "\x1b[?25h\x1b[?1049l") //nolint:errcheck // the terminal is gone, or takes it
	}
	first, err := a.status(ctx, args)
	if err != nil {
		return err
	}
	if err := a.draw(first, live, ""); err != nil {
		return err
	}
	woken := make(chan error, 1)
	streamCtx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.followEvents(streamCtx, first.EventSeq, woken)
	}()
	defer func() { stop(); <-ended }()
	refresh := time.NewTicker(watchRefresh)
	defer refresh.Stop()
	for {
		trouble := ""
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-woken:
			if err != nil {
				trouble = err.Error()
			}
		case <-refresh.C:
			if !live {
				continue
			}
		}
		st, err := a.status(ctx, args)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && live:
			trouble = err.Error()
			st = first
		case err != nil:
			return err
		default:
			first = st
		}
		if err := a.draw(st, live, trouble); err != nil {
			return err
		}
	}
}

// followEvents wakes the drawing loop at each event and keeps the stream alive
// across a restart of the agent, until ctx ends.
func (a *app) followEvents(ctx context.Context, since uint64, woken chan<- error) {
	wake := func(err error) {
		select {
		case woken <- err:
		default: // one is waiting already
		}
	}
	c := client.New(a.socket)
	defer c.Close()
	for ctx.Err() == nil {
		err := c.Events(ctx, fmt.Sprint(since), func(e apiv1.Event) error {
			since = e.Seq
			wake(nil)
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, io.EOF) {
			wake(err)
		}
		since = 0 // a restarted agent counts anew; everything it has is news
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
}

// draw shows one frame.
func (a *app) draw(st apiv1.Status, live bool, trouble string) error {
	if a.output == "json" {
		return a.json(st)
	}
	s := a.style()
	text := renderStatus(&st, s)
	if trouble != "" {
		text += s.bad(clean(trouble)) + "\n"
	}
	if !live {
		return a.say("%s  %s\n%s", st.Time.Format("15:04:05"), st.Node, text)
	}
	head := s.dim(fmt.Sprintf("%s  %s  %s   (Ctrl-C ends)", st.Cluster, st.Node, st.Time.Local().Format("15:04:05")))
	// Home, each line cleared to its end, then everything below.
	frame := "\x1b[H" + head + "\x1b[K\n" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
	_, err := io.WriteString(a.env.Out, frame)
	if err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	return nil
}

func (a *app) eventsCmd() *cobra.Command {
	var since, resource string
	var noFollow bool
	var kinds []string
	c := &cobra.Command{
		Use: "events", Short: "show what happened, and go on showing it", Args: cobra.NoArgs,
		Long: "events prints what this node saw, one line per event, and follows. With\n--output json each line is one event.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, k := range kinds {
				if !slices.Contains(apiv1.EventKinds(), k) {
					return usage("one of "+strings.Join(apiv1.EventKinds(), ", "), "there are no events of kind %q", k)
				}
			}
			err := a.events(cmd.Context(), since, noFollow, func(e apiv1.Event) bool {
				return (resource == "" || e.Resource == resource) && (len(kinds) == 0 || slices.Contains(kinds, e.Kind))
			})
			if noFollow {
				return err
			}
			return untilEnded(cmd.Context(), err)
		},
	}
	c.Flags().StringVar(&since, "since", client.SinceAll, "event number to begin after, or now")
	c.Flags().BoolVar(&noFollow, "no-follow", false, "end after what is known already")
	c.Flags().StringVar(&resource, "resource", "", "only events of one resource")
	c.Flags().StringSliceVar(&kinds, "kind", nil, "only events of these kinds ("+strings.Join(apiv1.EventKinds(), ", ")+")")
	return c
}

var errEnough = errors.New("all events shown")

func (a *app) events(ctx context.Context, since string, noFollow bool, wanted func(apiv1.Event) bool) error {
	c := a.client()
	last := ^uint64(0)
	if noFollow {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if last = st.EventSeq; last == 0 || since == client.SinceNow || since == fmt.Sprint(last) {
			return nil
		}
	}
	err := c.Events(ctx, since, func(e apiv1.Event) error {
		if wanted(e) {
			if err := a.event(e); err != nil {
				return err
			}
		}
		if e.Seq >= last {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return nil
	case errors.Is(err, io.EOF):
		return &client.UnreachableError{Socket: a.socket, Err: errors.New("the agent ended")}
	}
	return err
}

func (a *app) event(e apiv1.Event) error {
	if a.output == "json" {
		return a.json(e)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%6d %s %s %s", e.Seq, e.Time.Format("2006-01-02 15:04:05.000"), pad(clean(e.Node), 8), pad(e.Kind, 10))
	if e.Resource != "" {
		b.WriteString(" " + clean(e.Resource) + ":")
	}
	b.WriteString(" " + clean(e.Text))
	keys := make([]string, 0, len(e.Fields))
	for k := range e.Fields {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(&b, " %s=%s", clean(k), clean(e.Fields[k]))
	}
	return a.say("%s", b.String())
}

func (a *app) explainCmd() *cobra.Command {
	return &cobra.Command{
		Use: "explain RES", Short: "say whether this node may be promoted, why, and what would be lost",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.resourceArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.client().Explain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(e, renderExplanation(&e, a.style()))
		},
	}
}

func renderExplanation(e *apiv1.Explanation, s style) string {
	var b strings.Builder
	verdict := map[string]string{
		apiv1.MayPromote: s.good("may be promoted"), apiv1.MustWait: s.warn("must wait"),
		apiv1.NeedsForce: s.bad("only by force"), apiv1.CannotServe: s.bad("cannot be promoted"),
	}[e.Verdict]
	switch {
	case len(e.Sides) > 0:
		verdict = s.bad(e.Role + " in a split brain")
	case e.Role == "Primary":
		verdict = s.good(e.Role)
	}
	fmt.Fprintf(&b, "%s on %s: %s. %s\n", s.bold(clean(e.Resource)), s.bold(clean(e.Node)), verdict, clean(e.Text))
	for _, r := range e.Why {
		mark := s.good("yes")
		if !r.Holds {
			mark = s.bad("no ")
		}
		fmt.Fprintf(&b, "  %s  %s  %s\n", mark, pad(clean(r.Rule), 12), clean(r.Evidence))
	}
	for _, l := range e.WouldLose {
		fmt.Fprintf(&b, "  %s %s\n", s.bad("would lose:"), clean(l))
	}
	for _, h := range e.Help {
		fmt.Fprintf(&b, "  try: %s\n", clean(h))
	}
	renderSides(&b, e.Sides, s)
	if e.Policy != "" {
		fmt.Fprintf(&b, "  after_split_brain: %s\n", clean(e.Policy))
	}
	return b.String()
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "show the versions of hactl and of the agent", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := struct {
				Hactl string         `json:"hactl"`
				Agent *apiv1.Version `json:"agent"` // null when none answers
			}{Hactl: a.env.Version}
			text := "hactl   " + a.env.Version
			v, err := a.client().Version(cmd.Context())
			var gone *client.UnreachableError
			switch {
			case err == nil:
				out.Agent = &v
				text += fmt.Sprintf("\nhaagent %s on %s (API %s, %s)", v.Version, clean(v.Node), v.API, v.Go)
			case errors.As(err, &gone):
				text += "\nhaagent does not answer on " + a.socket
			default:
				return err
			}
			return a.show(out, text)
		},
	}
}
