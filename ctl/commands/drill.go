package commands

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
)

// drillWait is how long hactl waits for a report: a drill ends, and waits for
// what it disturbed, within less.
const drillWait = 12 * time.Minute

func (a *app) drillCmd() *cobra.Command {
	var yes bool
	req := apiv1.DrillRequest{WaitMS: drillWait.Milliseconds()}
	c := &cobra.Command{
		Use: "drill KIND RES", Short: "rehearse a failure on the live pair, and measure it", Args: cobra.ExactArgs(2),
		Long: "drill has one failure happen, waits until all is as before, and tells how long\nnothing was answered. KIND is\n\n" +
			"  crossover, lan  or another path of the configuration: it is closed between the\n                  two nodes at both ends for a while. Run it on the Primary\n" +
			"  agent           the Primary's agent ends as by SIGKILL, and its supervisor\n                  starts it again. Run it on the Secondary, which takes over\n" +
			"  pause           the Primary's agent stands still for a while. Run it on the\n                  Secondary, which takes over\n" +
			"  disk            the Primary's disks fail for a while, and it works through the\n                  Secondary's. Run it on the Primary\n" +
			"  power           the Primary is switched off by its fence devices, and you switch\n                  it on again. Run it on the Secondary, which takes over\n\n" +
			"It is refused unless both copies are current, all voters\nand paths are there, and services run. Without --yes it says what would happen, and\nasks when a person can answer.\nExit code 1: it took place, and not all is as before.",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return []string{"crossover", "lan", apiv1.DrillAgent, apiv1.DrillPause, apiv1.DrillDisk, apiv1.DrillPower}, cobra.ShellCompDirectiveNoFileComp
			}
			return a.resourceArg(cmd, args[1:], prefix)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Kind = args[0]
			if !yes {
				rep, err := a.client().Drill(cmd.Context(), args[1], req)
				if err != nil {
					return err
				}
				if err := a.confirmDrill(cmd.Context(), &rep); err != nil {
					return err
				}
			}
			req.Yes = true
			rep, err := a.client().Drill(cmd.Context(), args[1], req)
			if err != nil {
				return err
			}
			err = a.show(rep, renderDrill(&rep, a.style()))
			if err == nil && (!rep.Restored || rep.RTOMS < 0) {
				return &silentError{errors.New("not as before")}
			}
			return err
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().IntVar(&req.Seconds, "seconds", 0, "for how long it lasts, agent excepted (default: the agent's, 10)")
	return c
}

// confirmDrill says what will happen, and asks a person; without one --yes is
// needed.
func (a *app) confirmDrill(ctx context.Context, rep *apiv1.DrillReport) error {
	fmt.Fprintf(a.env.Err, "%s\n", renderPlan(rep, a.style()))
	if !a.env.InTerminal {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: "nothing was done", Hint: fmt.Sprintf("hactl drill %s %s --yes", rep.Kind, rep.Resource)}
	}
	return a.askName(ctx, rep.Resource, "Type the resource's name to go on: ", "nothing was done")
}

func renderPlan(rep *apiv1.DrillReport, s style) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", s.bold(fmt.Sprintf("drill %s of %s:", clean(rep.Kind), clean(rep.Resource))))
	for _, p := range rep.Plan {
		fmt.Fprintf(&b, "  - %s\n", clean(p))
	}
	return strings.TrimRight(b.String(), "\n")
}

func renderDrill(rep *apiv1.DrillReport, s style) string {
	var b strings.Builder
	word := s.good
	if !rep.Restored || rep.RTOMS < 0 {
		word = s.bad
	}
	fmt.Fprintf(&b, "%s\n", word(clean(rep.Text)))
	fmt.Fprintf(&b, "  measured  %s; to %.0f ms, %d answers\n", clean(rep.Measured), rep.ResolutionMS, rep.Probes)
	if len(rep.Parts) > 0 {
		var parts []string
		for _, p := range rep.Parts {
			parts = append(parts, fmt.Sprintf("%s %.0f ms", clean(p.Name), p.MS))
		}
		fmt.Fprintf(&b, "  of that   %s (as the new Primary counted it)\n", strings.Join(parts, ", "))
	}
	fmt.Fprintf(&b, "  lost      %s\n", clean(rep.Lost))
	for i := range rep.Steps {
		e := &rep.Steps[i]
		fmt.Fprintf(&b, "  %+8.3f s  %s  %s\n", e.Time.Sub(rep.Began).Seconds()-float64(e.SkewMS)/1000, pad(clean(e.Node), 8), entryText(e))
	}
	return b.String()
}
