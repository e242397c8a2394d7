package commands

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
	"hapair/agent/config"
)

// changed shows the answer to a change.
func (a *app) changed(c apiv1.Changed, err error) error {
	if err != nil {
		return err
	}
	text := clean(c.Text)
	if text == "" {
		text = fmt.Sprintf("%s: was %s, now %s", clean(c.Resource), clean(c.Was), clean(c.Now))
	}
	if c.TookMS > 0 {
		text += fmt.Sprintf(" (%d ms)", c.TookMS)
	}
	return a.show(c, text)
}

// verbCmd is a command RES that sends one request.
func (a *app) verbCmd(verb, short string, request func() (any, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " RES", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: a.resourceArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := request()
			if err != nil {
				return err
			}
			return a.changed(a.client().Change(cmd.Context(), args[0], verb, req))
		},
	}
}

func waitFlag(c *cobra.Command, wait *time.Duration) { waitFlagOf(c, wait, "the agent's, 2m") }

// waitFlagOf is waitFlag where the agent's default is another one.
func waitFlagOf(c *cobra.Command, wait *time.Duration, byDefault string) {
	c.Flags().DurationVar(wait, "wait", 0, "how long to wait for it to be complete (default: "+byDefault+")")
}

func (a *app) promoteCmd() *cobra.Command {
	var req apiv1.PromoteRequest
	var wait time.Duration
	var yes bool
	c := &cobra.Command{
		Use: "promote RES", Short: "make this node Primary", Args: cobra.ExactArgs(1), ValidArgsFunction: a.resourceArg,
		Long: "promote makes this node Primary and starts the services. --force goes on where\nwrites may be lost; it says first which, and asks when a person can answer.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Force && !yes {
				if err := a.confirmLoss(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			req.WaitMS = wait.Milliseconds()
			return a.changed(a.client().Change(cmd.Context(), args[0], apiv1.VerbPromote, req))
		},
	}
	c.Flags().BoolVar(&req.Force, "force", false, "go on although writes may be lost")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask before --force")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the record")
	waitFlag(c, &wait)
	return c
}

// confirmLoss says what a forced promotion may lose, and asks a person. Without
// one the flag itself is the consent.
func (a *app) confirmLoss(ctx context.Context, resource string) error {
	e, err := a.client().Explain(ctx, resource)
	if err != nil {
		return err
	}
	if e.Verdict == apiv1.MayPromote {
		return nil // nothing is forced
	}
	fmt.Fprint(a.env.Err, renderExplanation(&e, a.style()))
	if !a.env.InTerminal {
		return nil
	}
	return a.askName(ctx, resource, "Type the resource's name to force the promotion: ", "nothing was changed")
}

func (a *app) demoteCmd() *cobra.Command {
	var req apiv1.DemoteRequest
	var wait time.Duration
	c := a.verbCmd(apiv1.VerbDemote, "stop the services and make this node Secondary", func() (any, error) {
		req.WaitMS = wait.Milliseconds()
		return req, nil
	})
	c.Flags().BoolVar(&req.Force, "force", false, "fail I/O that will not finish")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the record")
	waitFlag(c, &wait)
	return c
}

func (a *app) switchoverCmd() *cobra.Command {
	var req apiv1.SwitchoverRequest
	var wait time.Duration
	c := a.verbCmd(apiv1.VerbSwitchover, "move the Primary to the other node, in order and without loss", func() (any, error) {
		req.WaitMS = wait.Milliseconds()
		return req, nil
	})
	c.Flags().StringVar(&req.To, "to", "", "node that becomes Primary (default: the other one)")
	c.Flags().BoolVar(&req.Force, "force", false, "end whoever uses the services or holds the device open")
	a.completeNodes(c, "to")
	waitFlag(c, &wait)
	return c
}

func (a *app) cleanupCmd() *cobra.Command {
	var req apiv1.CleanupRequest
	c := a.verbCmd(apiv1.VerbCleanup, "forget that services failed, and try again what is down", func() (any, error) { return req, nil })
	c.Long = "cleanup forgets the failures of services on both nodes: run it when their cause is\n" +
		"mended. What was given up is tried again at once, and a node that failed may be\nPrimary again."
	c.Flags().StringVar(&req.Service, "service", "", "only of this service, as hactl status names it")
	return c
}

func (a *app) connectCmd() *cobra.Command {
	var req apiv1.ConnectRequest
	c := a.verbCmd(apiv1.VerbConnect, "bring the mirror link up", func() (any, error) { return req, nil })
	c.Flags().BoolVar(&req.DiscardMyData, "discard-my-data", false, "after a split brain: give up what only this node has")
	c.Flags().BoolVar(&req.WithoutImage, "without-image", false, "with --discard-my-data: do not keep what is given up")
	return c
}

func (a *app) disconnectCmd() *cobra.Command {
	var req apiv1.DisconnectRequest
	c := a.verbCmd(apiv1.VerbDisconnect, "take the mirror link down and keep it down", func() (any, error) { return req, nil })
	c.Flags().BoolVar(&req.Force, "force", false, "even where a copy would be left behind")
	return c
}

func (a *app) invalidateCmd() *cobra.Command {
	var req apiv1.InvalidateRequest
	volume := -1
	c := a.verbCmd(apiv1.VerbInvalidate, "declare a copy worthless and sync it from the other", func() (any, error) {
		if volume >= 0 {
			req.Volume = &volume
		}
		return req, nil
	})
	c.Flags().BoolVar(&req.Peer, "peer", false, "the peer's copy instead of this node's")
	c.Flags().IntVar(&volume, "volume", -1, "only this volume")
	return c
}

func (a *app) attachCmd() *cobra.Command {
	var req apiv1.AttachRequest
	c := a.verbCmd(apiv1.VerbAttach, "take a disk into use again that has failed, and fill its copy", func() (any, error) { return req, nil })
	c.Long = "attach opens what is found now under the name of a disk that has failed, and fills\nits copy from the other node. A Primary goes on meanwhile."
	c.Flags().BoolVar(&req.CreateMetadata, "create-metadata", false, "the disk is another one: write metadata on it first")
	c.Flags().BoolVar(&req.Force, "force", false, "with --create-metadata: overwrite metadata, or cut a file system, that is there")
	return c
}

func (a *app) resizeCmd() *cobra.Command {
	var req apiv1.ResizeRequest
	var wait time.Duration
	volume, size := -1, ""
	c := a.verbCmd(apiv1.VerbResize, "give a volume another size on both nodes, a larger one while it is in use", func() (any, error) {
		if volume >= 0 {
			req.Volume = &volume
		}
		if size != "" {
			n, err := config.ParseSize(size)
			if err != nil {
				return nil, &usageError{text: fmt.Sprintf("--size %q is not a size; one looks like 20GiB", size)}
			}
			req.SizeBytes = int64(n)
		}
		req.WaitMS = wait.Milliseconds()
		return req, nil
	})
	c.Long = "resize makes a volume as large as the disks of both nodes offer, or --size. Enlarge\n" +
		"the disks of both nodes first (lvextend); then run it on any of the two. What is new\n" +
		"reads zero. The device shows the size when both copies have it; the file system on\nit grows by its own means (resize2fs, xfs_growfs).\n\n" +
		"A smaller --size is for a resource that is down on both nodes (hactl demote). Make\n" +
		"the file system smaller first (resize2fs). What would be cut, and what is not known,\n" +
		"is refused, unless --cut-data says that it may be lost."
	c.Flags().IntVar(&volume, "volume", -1, "only this volume")
	c.Flags().StringVar(&size, "size", "", "the size, as in 20GiB (default: the configuration's, or all that both disks offer)")
	c.Flags().BoolVar(&req.AssumeClean, "assume-clean", false, "the new range is equal on both disks already: do not make it zero")
	c.Flags().BoolVar(&req.AssumePeerHasSpace, "assume-peer-has-space", false, "go on without a peer that is away")
	c.Flags().BoolVar(&req.CutData, "cut-data", false, "lose what lies behind a smaller --size, whatever it is")
	waitFlag(c, &wait)
	return c
}

func (a *app) pauseCmd() *cobra.Command {
	return a.verbCmd(apiv1.VerbPauseSync, "pause the resync", func() (any, error) { return apiv1.SyncRequest{}, nil })
}

func (a *app) resumeCmd() *cobra.Command {
	return a.verbCmd(apiv1.VerbResumeSync, "let the resync go on", func() (any, error) { return apiv1.SyncRequest{}, nil })
}

func (a *app) verifyCmd() *cobra.Command {
	var req apiv1.VerifyRequest
	volume, rate := -1, ""
	c := a.verbCmd(apiv1.VerbVerify, "compare the copies while they are in use", func() (any, error) {
		if volume >= 0 {
			req.Volume = &volume
		}
		if req.Stop && (req.Resume || req.Repair || rate != "") {
			return nil, &usageError{text: "--stop goes alone"}
		}
		if rate != "" {
			r, err := config.ParseRate(rate)
			if err != nil {
				return nil, &usageError{text: fmt.Sprintf("--rate %q is not a rate; one looks like 20MiB/s", rate)}
			}
			req.RateBytesPerS = int64(r)
		}
		return req, nil
	})
	c.Long = "verify compares both copies block by block while applications use them, led by\n" +
		"the Primary. It goes on through breaks and restarts; hactl status shows how far\n" +
		"it is and what it found. What differs is marked, and the next resync repairs it.\n" +
		"--repair writes it at once, from the Primary to its peer: the Primary's copy is\nwhat the applications see. What the Primary cannot read is fetched from its peer."
	c.Flags().IntVar(&volume, "volume", -1, "only this volume")
	c.Flags().BoolVar(&req.Repair, "repair", false, "write what differs from the Primary to its peer, and anew what cannot be read")
	c.Flags().StringVar(&rate, "rate", "", "bytes per second at most, as in 20MiB/s (default: what the applications leave)")
	c.Flags().BoolVar(&req.Resume, "resume", false, "go on where the last one was stopped")
	c.Flags().BoolVar(&req.Stop, "stop", false, "end the one that runs; its position is kept")
	return c
}

func (a *app) maintenanceCmd() *cobra.Command {
	var req apiv1.MaintenanceRequest
	c := &cobra.Command{
		Use: "maintenance on|off", Short: "switch all automatic actions of the cluster off or on",
		Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"on", "off"},
		RunE: func(cmd *cobra.Command, args []string) error {
			req.On = args[0] == "on"
			return a.changed(a.client().Maintenance(cmd.Context(), req))
		},
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the record")
	return c
}

func (a *app) ledgerBeginCmd() *cobra.Command {
	var req apiv1.LedgerBeginRequest
	c := &cobra.Command{
		Use: "ledger-begin", Short: "have this node vote again although its ledger was lost and a voter is gone", Args: cobra.NoArgs,
		Long: "A voter whose ledger was lost takes no part before it has met every other one:\n" +
			"it has forgotten what it agreed to. Where one of them is gone for good, it would\n" +
			"wait for ever. What only that one and this node had decided is forgotten then:\n" +
			"a copy that was taken out of the in-sync set may count as current again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.changed(a.client().LedgerBegin(cmd.Context(), req))
		},
	}
	c.Flags().BoolVar(&req.Checked, "i-have-checked", false, "who was not met is gone for good, and so is what only it knew")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the record")
	return c
}

func (a *app) standbyCmd() *cobra.Command {
	var off bool
	var req apiv1.StandbyRequest
	c := &cobra.Command{
		Use: "standby NODE", Short: "mark a node as not to be promoted; it hands over first",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.nodeArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Node, req.On = args[0], !off
			return a.changed(a.client().Standby(cmd.Context(), req))
		},
	}
	c.Flags().BoolVar(&off, "off", false, "take the mark away")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the record")
	return c
}
