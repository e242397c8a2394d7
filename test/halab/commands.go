package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"hapair/test/lab"
)

func upCommand(dir *string) *cobra.Command {
	var o lab.Options
	var size string
	c := &cobra.Command{Use: "up", Short: "build the lab and start its agents", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			bytes, err := parseSize(size)
			if err != nil {
				return err
			}
			if o.Services, err = services(o.Services); err != nil {
				return err
			}
			if o.Filesystem == "" && slices.ContainsFunc(o.Services, func(s string) bool { return strings.HasPrefix(s, "mount:") }) {
				o.Filesystem = "ext4"
			}
			o.Size, o.Dir = bytes, *dir
			o.Log = func(format string, args ...any) { fmt.Fprintf(c.OutOrStdout(), format+"\n", args...) }
			release, err := lab.Lock(*dir)
			if err != nil {
				return err
			}
			defer release()
			_, err = lab.Up(c.Context(), o)
			return err
		}}
	f := c.Flags()
	f.StringSliceVar(&o.Nodes, "nodes", []string{"alpha", "beta"}, "the two data nodes")
	f.StringVar(&o.Witness, "witness", "gamma", "the witness; - for none")
	f.DurationVar(&o.Watchdog, "watchdog", 0, "time-out of each data node's watchdog; 0: none")
	f.BoolVar(&o.SBD, "sbd", false, "arbitration fencing by poison pills on a file that both nodes see; with --watchdog")
	f.StringVar(&o.Arbitration, "arbitration", "", "witness, fencing or manual; default witness when there is one")
	f.StringVar(&size, "size", "256M", "size of the volume")
	f.StringVar(&o.Resource, "resource", "pg", "name of the resource")
	f.StringVar(&o.Frontend, "frontend", "auto", "auto, fuse or export")
	f.StringVar(&o.Filesystem, "filesystem", "", "made on both copies beforehand: ext4 or xfs; ext4 when something is mounted")
	f.BoolVar(&o.Internal, "internal", false, "metadata at the end of the disk")
	f.StringArrayVar(&o.Services, "service", nil, "mount,exec,address for the usual ones, or one as in the configuration, such as 'mount: {path: /srv/pg, type: ext4}'; again for more")
	f.StringVar(&o.Extra, "config", "", "more lines for the top level of the configuration")
	f.BoolVar(&o.FirstSync, "first-sync", false, "do not call the copies equal: hactl promote --force one of them, and see it copied")
	f.BoolVar(&o.NoAgents, "no-agents", false, "boot the nodes only")
	return c
}

// parseSize reads a number of bytes with an optional K, M or G, binary.
func parseSize(text string) (int64, error) {
	trimmed := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text), "B"), "I")
	shift := map[string]int{"K": 10, "M": 20, "G": 30}
	bits := 0
	if n := len(trimmed); n > 0 {
		if s, ok := shift[trimmed[n-1:]]; ok {
			bits, trimmed = s, trimmed[:n-1]
		}
	}
	n, err := strconv.ParseInt(trimmed, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("size %q: want a number with K, M or G, such as 256M", text)
	}
	return n << bits, nil
}

func downCommand(dir *string) *cobra.Command {
	return &cobra.Command{Use: "down", Short: "end everything of the lab and remove its files", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := lab.Open(*dir); errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return change(*dir, (*lab.Lab).Down)
		}}
}

func statusCommand(dir *string) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "what is on, what runs, what is cut, and how the resource is", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "NODE\tPOWER\tAGENT\tCABLES\tADDRESS\tROLE\tDISK\tIN SYNC")
			for _, name := range l.Nodes() {
				n := l.Look(c.Context(), name)
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, n.Power, n.Agent, n.Cables, l.Address(name, lab.LAN), n.Role, n.Disk, n.InSync)
			}
			return w.Flush()
		}}
}

func execCommand(dir *string) *cobra.Command {
	return &cobra.Command{Use: "exec NODE -- COMMAND...", Short: "run a command on a node (client is one too)", Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			path, err := l.LookPath(args[1])
			if err != nil {
				return err
			}
			cmd := exec.Command(path, args[2:]...)
			cmd.Args[0] = args[1]
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			signals := make(chan os.Signal, 1)
			signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
			if err := l.Enter(args[0], cmd); err != nil {
				return err
			}
			go func() {
				for s := range signals {
					if err := cmd.Process.Signal(s); err != nil {
						return // it ended
					}
				}
			}()
			return asCommand(cmd.Wait())
		}}
}

func logsCommand(dir *string) *cobra.Command {
	return &cobra.Command{Use: "logs NODE", Short: "what the node's agent wrote", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			f, err := os.Open(l.LogFile(args[0]))
			if err != nil {
				return err
			}
			defer f.Close() //nolint:errcheck // only read from
			_, err = io.Copy(c.OutOrStdout(), f)
			return err
		}}
}

func powerCommand(dir *string) *cobra.Command {
	return &cobra.Command{Use: "power on|off NODE", Short: "cut a node's power, or give it back", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case "off":
				return change(*dir, func(l *lab.Lab) error { return l.PowerOff(args[1]) })
			case "on":
				return change(*dir, func(l *lab.Lab) error { return l.PowerOn(args[1]) })
			}
			return fmt.Errorf("power %s: on or off", args[0])
		}}
}

func diskCommand(dir *string) *cobra.Command {
	return &cobra.Command{Use: "disk NODE RULE...", Short: "let the disk of a node's agent fail, hang or be slow", Args: cobra.MinimumNArgs(2),
		Long: "A rule is a list of words: operations with commas between them (read, write, flush, discard, write-zeroes), offset=BYTES, length=BYTES,\n" +
			"skip=N, count=N, delay=TIME, err=io|nospace|notsupp, hang, late, torn. \"clear\" takes all rules away, \"release\" lets go on what hangs.\n" +
			"Rules are forgotten when the agent ends.",
		Example: "  halab disk alpha write,flush err=io\n  halab disk alpha read offset=4096 length=4096 err=io count=1\n  halab disk alpha clear",
		RunE: func(c *cobra.Command, args []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			return l.Fault(c.Context(), args[0], strings.Join(args[1:], " "))
		}}
}

func linkCommand(dir *string) *cobra.Command {
	return &cobra.Command{Use: "link cut|deaf|narrow|heal NODE crossover|lan", Short: "pull a cable out of a node, let it carry only some of what is for the node, or mend it",
		Long: "cut: no carrier at either end. deaf: nothing arrives at the node, what it sends goes out. narrow: what is longer than 1,000 bytes does\nnot arrive at the node. heal ends all of them.", Args: cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case string(lab.Deaf), string(lab.Narrow):
				return change(*dir, func(l *lab.Lab) error { return l.Ail(args[1], args[2], lab.Ill(args[0])) })
			case "cut":
				return change(*dir, func(l *lab.Lab) error { return l.Cut(args[1], args[2]) })
			case "heal":
				return change(*dir, func(l *lab.Lab) error { return l.Heal(args[1], args[2]) })
			}
			return fmt.Errorf("link %s: cut, deaf, narrow or heal", args[0])
		}}
}

func boardsCommand(dir *string) *cobra.Command {
	return &cobra.Command{Use: "boards", Short: "be the management boards of the nodes, which speak Redfish", Args: cobra.NoArgs,
		Long: fmt.Sprintf("boards serves Redfish over TLS, on port %d of wherever it runs, such as the client: halab exec client -- halab boards.\n"+
			"fence_redfish reaches a node there with systems_uri=/redfish/v1/Systems/NODE, username=%s, password_file=%s, ssl_insecure=1.", lab.BoardsPort, lab.BoardsUser, lab.BoardsPasswordFile),
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			return l.ServeBoards(c.Context())
		}}
}

func bmcsCommand(dir *string) *cobra.Command {
	return &cobra.Command{Use: "bmcs", Short: "be the controllers (BMCs) of the nodes, which speak IPMI over LAN", Args: cobra.NoArgs,
		Long: fmt.Sprintf("bmcs runs OpenIPMI's ipmi_sim for each data node, at the client's address (Debian: openipmi). Off and on are the node's power.\n"+
			"fence_ipmilan reaches the first one with lanplus=1, cipher=3, privlvl=operator, username=%s, password_file=%s, ipport=6231,\n"+
			"the second one with ipport=6232.", lab.BMCUser, lab.BMCPasswordFile),
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := lab.Open(*dir)
			if err != nil {
				return err
			}
			return l.ServeBMCs(c.Context(), nil)
		}}
}

// fenceCommand is the fence agent of the lab, which programs speak to.
func fenceCommand() *cobra.Command {
	return &cobra.Command{Use: "fence", Short: "be a fence agent for the nodes: options on standard input", Args: cobra.NoArgs,
		Long: `fence speaks the interface of ClusterLabs' fence agents: it reads lines of
option=value from standard input (action, plug, dir, power_timeout) and answers
with an exit code. With ip, ipport and password it switches boards that are
reached by Redfish over HTTP. A program of the name fence_halab does the same; there is
one in the lab's directory, for the nodes to fence each other with.`,
		Example: "  printf 'action=off\nplug=beta\n' | halab fence",
		RunE: func(c *cobra.Command, _ []string) error {
			if code := lab.FenceAgent(c.Context(), c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()); code != 0 {
				return &commandError{code}
			}
			return nil
		}}
}
