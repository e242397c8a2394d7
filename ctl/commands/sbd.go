package commands

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hapair/agent/config"
	"hapair/fencing/sbd"
)

// sbdDump is what is on a disk with pills.
type sbdDump struct {
	Path    string    `json:"path"`
	Disk    string    `json:"disk"`
	Cluster string    `json:"cluster"`
	Made    time.Time `json:"made"`
	Slots   []sbdSlot `json:"slots"`
}

// sbdSlot is one node's part.
type sbdSlot struct {
	Node      string    `json:"node"`
	Armed     bool      `json:"armed"` // its watchdog, in that life
	Life      string    `json:"life"`
	TimeoutMS int64     `json:"timeout_ms"`
	Since     time.Time `json:"since"`
	Pill      bool      `json:"pill"`
	PillFor   string    `json:"pill_for"` // the life that it ends
	PillFrom  string    `json:"pill_from"`
	Because   string    `json:"because"`
	PillSince time.Time `json:"pill_since"`
	Damaged   string    `json:"damaged"` // what cannot be read of it; ""
}

func (a *app) createSBDCmd() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "create-sbd [DISK]", Short: "prepare the disk by which nodes are fenced with poison pills",
		Long: "create-sbd prepares a small disk, of 64 KiB or more, that both nodes see, for fencing by\n" +
			"poison pills (sbd: in the configuration): once, on one node, before the agents are\n" +
			"started. Without DISK it is each one that the configuration names. A disk with anything\n" +
			"on it is refused.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			disks, owner, err := a.sbdDisks(args)
			if err != nil {
				return err
			}
			var made []sbdDump
			var text strings.Builder
			for _, d := range disks {
				if _, err := sbd.Create(d, owner, force); err != nil {
					return err
				}
				dump, err := dumpSBD(d)
				if err != nil {
					return err
				}
				made = append(made, dump)
				fmt.Fprintf(&text, "%s: made for %s of cluster %s\n", clean(d), strings.Join(owner.Nodes, " and "), clean(owner.Cluster))
			}
			return a.show(made, text.String())
		},
	}
	c.Flags().BoolVar(&force, "force", false, "make one anew that is made already: the agents of both nodes have to be started again")
	return c
}

func (a *app) dumpSBDCmd() *cobra.Command {
	return &cobra.Command{
		Use: "dump-sbd [DISK]", Short: "show what is on the disk by which nodes are fenced with poison pills",
		Long: "dump-sbd reads what each node says of its watchdog there, and whether a pill waits for\n" +
			"it. It changes nothing, and may be used while the agents run.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			disks, _, err := a.sbdDisks(args)
			if err != nil {
				return err
			}
			var all []sbdDump
			var text strings.Builder
			for _, d := range disks {
				dump, err := dumpSBD(d)
				if err != nil {
					return err
				}
				all = append(all, dump)
				dump.render(&text)
			}
			return a.show(all, text.String())
		},
	}
}

// sbdDisks are the disks that are named, here or in the configuration.
func (a *app) sbdDisks(args []string) ([]string, sbd.Owner, error) {
	cfg, err := config.Load(a.cfg)
	if err != nil {
		return nil, sbd.Owner{}, err
	}
	disks := args
	for _, n := range cfg.NodeNames() {
		if d := cfg.SBDOf(n); d != "" && len(args) == 0 && !slices.Contains(disks, d) {
			disks = append(disks, d)
		}
	}
	if len(disks) == 0 {
		return nil, sbd.Owner{}, usage("name a disk, or write fencing: {"+cfg.NodeNames()[0]+": [{sbd: DISK}]} into the file", "the configuration names no sbd disk")
	}
	return disks, cfg.SBDOwner(), nil
}

func dumpSBD(path string) (sbdDump, error) {
	l, err := sbd.Show(path)
	if err != nil {
		return sbdDump{}, err
	}
	d := sbdDump{Path: path, Disk: l.Head.Disk.String(), Cluster: l.Head.Cluster, Made: l.Head.Made}
	for i := range l.Slots {
		s := &l.Slots[i]
		x := sbdSlot{Node: s.Node, Armed: s.Slot.Armed, Life: s.Slot.Life.String(), TimeoutMS: s.Slot.Timeout.Milliseconds(), Since: s.Slot.At,
			Pill: s.Mail.Pill, PillFor: s.Mail.To.String(), PillFrom: s.Mail.From, Because: s.Mail.Why, PillSince: s.Mail.At}
		for _, err := range []error{s.SlotErr, s.MailErr} {
			if err != nil {
				x.Damaged = strings.TrimPrefix(x.Damaged+"; "+err.Error(), "; ")
			}
		}
		d.Slots = append(d.Slots, x)
	}
	return d, nil
}

func (d *sbdDump) render(b *strings.Builder) {
	fmt.Fprintf(b, "%s: cluster %s, made %s, disk %s\n", clean(d.Path), clean(d.Cluster), d.Made.Format(time.RFC3339), d.Disk)
	for i := range d.Slots {
		s := &d.Slots[i]
		word := "its watchdog is not armed"
		if s.Armed {
			word = "its watchdog is armed, with " + millisText(s.TimeoutMS)
		}
		fmt.Fprintf(b, "  %s: %s, since %s, life %.8s\n", clean(s.Node), word, s.Since.Format(time.RFC3339), s.Life)
		switch {
		case s.Damaged != "":
			fmt.Fprintf(b, "    %s\n", clean(s.Damaged))
		case s.Pill && s.PillFor == s.Life && s.Armed:
			fmt.Fprintf(b, "    a pill waits for it, from %s since %s: %s\n", clean(s.PillFrom), s.PillSince.Format(time.RFC3339), clean(s.Because))
		case s.Pill:
			fmt.Fprintf(b, "    a pill for life %.8s, from %s of %s: %s\n", s.PillFor, clean(s.PillFrom), s.PillSince.Format(time.RFC3339), clean(s.Because))
		}
	}
}
