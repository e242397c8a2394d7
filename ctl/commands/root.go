package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/ctl/client"
)

// Env is the world around one run of hactl.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	// Terminal says that Out is one; InTerminal that a person can answer on In.
	Terminal, InTerminal bool
	Getenv               func(string) string
	// Columns is the width of the terminal, 0 when unknown.
	Columns func() int
	Version string
}

// app is what the commands share.
type app struct {
	env    Env
	socket string
	output string
	cfg    string

	agent *client.Client // made at the first use; --socket is known then
}

// Main runs hactl with args (without the program's name) and returns the exit
// code. It ends when ctx does: with ExitTimeout, unless the command is one that
// follows until then.
func Main(ctx context.Context, args []string, env Env) int {
	a := &app{env: env}
	defer func() { a.client().Close() }()
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	return a.report(cmd, err)
}

// report shows an error the way the output was asked for.
func (a *app) report(cmd *cobra.Command, err error) int {
	p, code := judge(err)
	var shown *silentError
	if errors.As(err, &shown) {
		return code
	}
	if a.output == "json" {
		if err := a.json(apiv1.ErrorBody{Error: p}); err != nil {
			fmt.Fprintln(a.env.Err, "hactl:", err)
		}
		return code
	}
	s := a.style()
	fmt.Fprintf(a.env.Err, "%s %s\n", s.bad("hactl:"), p.Text)
	if p.Hint != "" {
		fmt.Fprintf(a.env.Err, "  try: %s\n", p.Hint)
	}
	if code == ExitUsage && cmd != nil && p.Hint == "" && p.Code == apiv1.CodeBadRequest && !isConfigError(err) {
		fmt.Fprintf(a.env.Err, "  try: %s --help\n", cmd.CommandPath())
	}
	return code
}

func isConfigError(err error) bool {
	var bad config.Errors
	return errors.As(err, &bad)
}

// Groups of the help.
const (
	groupLook    = "look"
	groupChange  = "change"
	groupSetup   = "setup"
	groupMissing = "missing"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "hactl",
		Short: "see and change a hapair node",
		Long: "hactl speaks to the haagent of this machine.\n\n" +
			"Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 refused by a rule,\n" +
			"4 agent unreachable, 5 not implemented, 6 not permitted, 7 timed out or interrupted.",
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkFlags() },
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		Args:              cobra.NoArgs,
	}
	root.SetIn(a.env.In)
	root.SetOut(a.env.Out)
	root.SetErr(a.env.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{text: err.Error()} })
	f := root.PersistentFlags()
	f.StringVar(&a.socket, "socket", config.DefaultRunDir+"/"+config.SocketName, "control socket of the agent")
	f.StringVarP(&a.output, "output", "o", "text", "text or json")
	f.StringVar(&a.cfg, "config", config.DefaultPath, "configuration file")
	root.AddGroup(
		&cobra.Group{ID: groupLook, Title: "See:"}, &cobra.Group{ID: groupChange, Title: "Change:"},
		&cobra.Group{ID: groupSetup, Title: "Set up:"}, &cobra.Group{ID: groupMissing, Title: "Not implemented yet:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupLook, a.statusCmd(), a.eventsCmd(), a.timelineCmd(), a.explainCmd(), a.versionCmd())
	add(groupChange, a.promoteCmd(), a.demoteCmd(), a.switchoverCmd(), a.cleanupCmd(), a.connectCmd(), a.disconnectCmd(), a.splitBrainCmd(),
		a.invalidateCmd(), a.attachCmd(), a.setCmd(), a.pauseCmd(), a.resumeCmd(), a.verifyCmd(), a.resizeCmd(), a.maintenanceCmd(), a.standbyCmd(), a.ledgerBeginCmd(), a.replaceCmd(),
		a.fenceCmd(), a.fenceConfirmCmd(), a.drillCmd())
	add(groupSetup, a.initCmd(), a.inviteCmd(), a.joinCmd(), a.createMetadataCmd(), a.dumpMetadataCmd(), a.checkMetadataCmd(), a.moveMetadataCmd(), a.convertMetadataCmd(),
		a.createSBDCmd(), a.dumpSBDCmd(), a.configCmd())
	add(groupMissing, a.notBuiltCmds()...)
	root.AddCommand(a.manCmd(root))
	wrapArgs(root)
	return root
}

// wrapArgs makes every complaint about arguments a usage error.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			switch {
			case err == nil:
				return nil
			case !cmd.HasParent(): // not a command at all
				return &usageError{text: err.Error()}
			}
			return usage(cmd.Parent().CommandPath()+" "+cmd.Use, "%s: %v", cmd.Name(), err)
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

func (a *app) checkFlags() error {
	if a.output != "text" && a.output != "json" {
		given := a.output
		a.output = "text"
		return usage("--output text or --output json", "output %q is not known", given)
	}
	return nil
}

// client returns the one client of this run.
func (a *app) client() *client.Client {
	if a.agent == nil {
		a.agent = client.New(a.socket)
	}
	return a.agent
}

// json writes a value for programs: one line.
func (a *app) json(v any) error {
	if err := json.NewEncoder(a.env.Out).Encode(v); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// say writes a line for people.
func (a *app) say(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.env.Out, format+"\n", args...); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// show writes v as JSON, or the text for people.
func (a *app) show(v any, text string) error {
	if a.output == "json" {
		return a.json(v)
	}
	return a.say("%s", strings.TrimRight(text, "\n"))
}

// style colours only a terminal, and honours NO_COLOR and TERM=dumb.
func (a *app) style() style {
	return style{on: a.env.Terminal && a.env.Getenv("NO_COLOR") == "" && a.env.Getenv("TERM") != "dumb"}
}

// nodeArg completes names of data nodes.
func (a *app) nodeArg(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.nodes(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
}

// completeNodes does so for a flag.
func (a *app) completeNodes(c *cobra.Command, flag string) {
	complete := func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.nodes(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
	}
	if err := c.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // there is no such flag, or twice: seen by every test
	}
}

// nodes are the data nodes that the agent knows; none when it does not answer.
func (a *app) nodes(ctx context.Context) (names []string) {
	st, err := a.client().Status(ctx)
	if err != nil {
		return nil
	}
	for i := range st.Members {
		if st.Members[i].Kind == apiv1.KindData {
			names = append(names, st.Members[i].Name)
		}
	}
	return names
}

// resourceArg completes names of resources.
func (a *app) resourceArg(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	st, err := a.client().Status(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for i := range st.Resources {
		names = append(names, st.Resources[i].Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
