package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"hapair/kernel/program"
)

// OCF is a service kept by a resource agent after the Open Cluster Framework's
// Resource Agent API 1.1, as Pacemaker has them. It is asked what it is
// (meta-data) before its first start; a parameter that it does not know, or
// lacks, is an error then.
type OCF struct {
	Agent      string // provider:type, or ocf:provider:type
	Instance   string // what the agent calls this one; "": its type
	Parameters map[string]string
	CheckLevel int // depth of a monitor, as OCF_CHECK_LEVEL; 0: the agent's own idea

	StartTimeout   time.Duration // 0: DefaultExecTimeout; what the agent asks for is only warned of
	StopTimeout    time.Duration // 0: DefaultExecTimeout
	MonitorTimeout time.Duration // 0: DefaultStatusTimeout

	Root string // "": OCFRoot
}

// OCFRoot is where resource agents are, as resource.d/provider/type.
const OCFRoot = "/usr/lib/ocf"

// The exit codes of a resource agent that are more than an error.
const (
	ocfSuccess          = 0
	ocfNotRunning       = 7
	ocfPromoted         = 8
	ocfDegraded         = 190
	ocfDegradedPromoted = 191
)

// ocfMeaning says what an exit code means, and whether another attempt on
// this machine is of no use.
var ocfMeaning = map[int]struct {
	text string
	hard bool
}{
	1: {"a generic error", false},
	2: {"wrong parameters", true},
	3: {"the action is not implemented", true},
	4: {"insufficient privileges", true},
	5: {"a required component is not installed", true},
	6: {"it is misconfigured", true},
	7: {"not running", false},
	8: {"running as promoted", false},
	9: {"failed as promoted", false},
}

var (
	ocfPart  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	ocfParam = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// metadataLimit is how long an agent may take to say what it is.
const metadataLimit = 20 * time.Second

type ocfService struct {
	cfg            OCF
	provider, kind string
	deps           Deps
	checked        bool // what it says of itself fits the parameters
	commands
}

func newOCF(cfg OCF, deps Deps) (Movable, error) {
	o, err := parseOCF(cfg)
	if err != nil {
		return nil, err
	}
	o.deps = deps
	o.log = deps.Logger.With(zap.String("ocf", o.cfg.Agent), zap.String("instance", o.cfg.Instance))
	return o, nil
}

func parseOCF(cfg OCF) (*ocfService, error) {
	name := strings.TrimPrefix(cfg.Agent, "ocf:")
	provider, kind, found := strings.Cut(name, ":")
	if !found || !ocfPart.MatchString(provider) || !ocfPart.MatchString(kind) {
		return nil, fmt.Errorf("ocf agent %q: want provider:type, as in heartbeat:pgsql", cfg.Agent)
	}
	for p := range cfg.Parameters {
		if !ocfParam.MatchString(p) {
			return nil, fmt.Errorf("ocf agent %s: parameter %q: want letters, digits and _, as the agent has them", name, p)
		}
	}
	if cfg.CheckLevel < 0 || cfg.CheckLevel > 100 {
		return nil, fmt.Errorf("ocf agent %s: check level %d: want 0 to 100", name, cfg.CheckLevel)
	}
	if err := timeouts(&cfg.StartTimeout, &cfg.StopTimeout, &cfg.MonitorTimeout); err != nil {
		return nil, fmt.Errorf("ocf agent %s: %w", name, err)
	}
	cfg.Agent = name
	if cfg.Instance == "" {
		cfg.Instance = kind
	}
	if cfg.Root == "" {
		cfg.Root = OCFRoot
	}
	return &ocfService{cfg: cfg, provider: provider, kind: kind}, nil
}

// CheckOCF asks the agent on this machine whether it is there and whether the
// parameters are what it wants. It runs nothing but the agent's meta-data.
func CheckOCF(ctx context.Context, cfg OCF) error {
	m, err := New(Spec{OCF: &cfg}, Deps{})
	if err != nil {
		return err
	}
	return m.(*ocfService).check(ctx)
}

func (o *ocfService) Name() string { return "ocf:" + o.cfg.Instance }

func (o *ocfService) program() string {
	return filepath.Join(o.cfg.Root, "resource.d", o.provider, o.kind)
}

// Start starts what does not run. A monitor that finds it broken is followed by
// a stop first, as Pacemaker recovers.
func (o *ocfService) Start(ctx context.Context) error {
	if err := o.check(ctx); err != nil {
		return err
	}
	running, err := o.Monitor(ctx)
	var failed *ExecError
	switch {
	case running:
		return nil
	case errors.As(err, &failed) && failed.Cause == nil && !ocfMeaning[failed.Code].hard:
		if err := o.Stop(ctx); err != nil {
			return fmt.Errorf("it was found broken, and: %w", err)
		}
	case err != nil:
		return err
	}
	return o.do(ctx, "start", o.cfg.StartTimeout)
}

// Stop stops it. An agent that never was on this machine has nothing running.
func (o *ocfService) Stop(ctx context.Context) error {
	err := o.do(ctx, "stop", o.cfg.StopTimeout)
	if o.neverHere(err) {
		return nil
	}
	return err
}

// neverHere tells an agent that is not installed from one that was and is gone.
func (o *ocfService) neverHere(err error) bool { return errors.Is(err, fs.ErrNotExist) && !o.checked }

// Monitor reports whether it runs, by the agent's own word. Any code but those that
// mean that it does, or does not, means that it is broken.
func (o *ocfService) Monitor(ctx context.Context) (bool, error) {
	err := o.do(ctx, "monitor", o.cfg.MonitorTimeout)
	var failed *ExecError
	if errors.As(err, &failed) && failed.exited() {
		switch failed.Code {
		case ocfNotRunning:
			return false, nil
		case ocfPromoted, ocfDegraded, ocfDegradedPromoted:
			return true, nil
		}
		return false, broken{err}
	}
	if o.neverHere(err) {
		return false, nil
	}
	return err == nil, err
}

// do runs one action. An error that no further attempt mends is permanent.
func (o *ocfService) do(ctx context.Context, action string, limit time.Duration) error {
	err := o.run(ctx, invocation{action: action, argv: []string{o.program(), action}, env: o.environment(action, limit), limit: limit,
		quiet: action == "monitor"})
	var failed *ExecError
	if !errors.As(err, &failed) || failed.Cause != nil {
		return err
	}
	means := ocfMeaning[failed.Code]
	failed.Means = means.text
	if means.hard {
		return permanent{err}
	}
	return err
}

// environment is that of the OCF Resource Agent API, with what agents written
// for Pacemaker ask for besides.
func (o *ocfService) environment(action string, limit time.Duration) []string {
	env := append(program.Environment(),
		"OCF_ROOT="+o.cfg.Root, "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1",
		"OCF_RESOURCE_INSTANCE="+o.cfg.Instance, "OCF_RESOURCE_PROVIDER="+o.provider, "OCF_RESOURCE_TYPE="+o.kind,
		"OCF_RESKEY_CRM_meta_timeout="+strconv.FormatInt(limit.Milliseconds(), 10),
		"OCF_RESKEY_CRM_meta_name="+action, "OCF_RESKEY_CRM_meta_on_node="+o.deps.Node)
	if action == "monitor" && o.cfg.CheckLevel > 0 {
		env = append(env, "OCF_CHECK_LEVEL="+strconv.Itoa(o.cfg.CheckLevel))
	}
	for name, value := range o.cfg.Parameters {
		env = append(env, "OCF_RESKEY_"+name+"="+value)
	}
	return env
}
