package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Systemd is a unit of the node's systemd. It should not be enabled: it would
// start at boot on both nodes.
type Systemd struct {
	Unit string // with its suffix, such as postgresql.service

	// StopTimeout is after what time somebody gives up waiting for its stop; a start
	// warns of a unit to which systemd gives more. 0: never.
	StopTimeout time.Duration
}

// ErrNoSystemd is returned when no systemd can be reached.
var ErrNoSystemd = errors.New("no systemd answers on this node's bus")

// UnitError is returned when systemd could not bring a unit where it was asked
// to go.
type UnitError struct {
	Unit, Action string
	Result       string // systemd's word: failed, timeout, canceled, dependency, skipped; or not-found, masked
	State        string // the unit's state afterwards, such as "failed (Result: exit-code, status 1)"
}

// Error says what systemd said and where to look.
func (e *UnitError) Error() string {
	text := fmt.Sprintf("%s %s: %s", e.Action, e.Unit, e.Result)
	if e.State != "" {
		text += "; the unit is " + e.State
	}
	if e.Result == "not-found" {
		return text + "; is it installed on this node?"
	}
	return text + "; see journalctl -u " + e.Unit
}

type unit struct {
	name        string
	stopTimeout time.Duration // see Systemd
	deps        Deps
	log         *zap.Logger
	restarts    int64 // by systemd itself, as last seen; restartsUnseen before
}

const restartsUnseen = -1

const unitNameMax = 255

func newUnit(cfg Systemd, deps Deps) (Movable, error) {
	if dot := strings.LastIndexByte(cfg.Unit, '.'); dot <= 0 || dot == len(cfg.Unit)-1 {
		return nil, fmt.Errorf("systemd unit %q: must carry its suffix, such as %q", cfg.Unit, strings.Trim(cfg.Unit, ".")+".service")
	}
	if len(cfg.Unit) > unitNameMax || strings.ContainsAny(cfg.Unit, "/ \t\n\x00") {
		return nil, fmt.Errorf("systemd unit %q: must be a unit name of at most %d characters without blanks and slashes", cfg.Unit, unitNameMax)
	}
	return &unit{name: cfg.Unit, stopTimeout: cfg.StopTimeout, deps: deps, log: deps.Logger.With(zap.String("unit", cfg.Unit)), restarts: restartsUnseen}, nil
}

func (u *unit) Name() string { return "systemd:" + u.name }

// with runs f on a fresh connection: systemd may have been restarted since the
// last one.
func (u *unit) with(ctx context.Context, f func(*sd.Conn) error) error {
	conn, err := u.connect(ctx)
	if err != nil {
		return fmt.Errorf("systemd unit %s: %w: %w", u.name, ErrNoSystemd, err)
	}
	defer conn.Close()
	return f(conn)
}

func (u *unit) connect(ctx context.Context) (*sd.Conn, error) {
	if u.deps.Systemd == nil {
		return sd.NewWithContext(ctx)
	}
	return sd.NewConnection(func() (*dbus.Conn, error) { return u.deps.Systemd(ctx) })
}

func (u *unit) Start(ctx context.Context) error {
	return u.with(ctx, func(c *sd.Conn) error {
		props, err := c.GetAllPropertiesContext(ctx, u.name)
		if err != nil {
			return fmt.Errorf("look at unit %s: %w", u.name, err)
		}
		if load := word(props, "LoadState"); load == "not-found" || load == "masked" || load == "bad-setting" {
			return permanent{&UnitError{Unit: u.name, Action: "start", Result: load}}
		}
		if word(props, "UnitFileState") == "enabled" {
			u.log.Warn("the unit is enabled and would start at boot without regard to roles; run systemctl disable on both nodes")
		}
		u.warn(props)
		u.restarts = restartsUnseen
		if err := u.job(ctx, c, "start", c.StartUnitContext); err != nil {
			return err
		}
		if props, err = c.GetAllPropertiesContext(ctx, u.name); err == nil { // else the next check sees it first
			u.restartedByItself(props)
		}
		return nil
	})
}

func (u *unit) Stop(ctx context.Context) error {
	return u.with(ctx, func(c *sd.Conn) error {
		return u.job(ctx, c, "stop", c.StopUnitContext)
	})
}

// StopForced kills every process of the unit, then stops it, so that nothing
// restarts it.
func (u *unit) StopForced(ctx context.Context) error {
	return u.with(ctx, func(c *sd.Conn) error {
		err := c.KillUnitWithTarget(ctx, u.name, sd.All, int32(unix.SIGKILL))
		if err != nil && !isBusError(err, "NoSuchUnit", "NoSuchProcess", "UnitNotActive") {
			u.log.Warn("unit not killed", zap.Error(err))
		}
		return u.job(ctx, c, "stop", c.StopUnitContext)
	})
}

type jobFunc func(ctx context.Context, name, mode string, ch chan<- string) (int, error)

// job enqueues a job and waits for its result.
func (u *unit) job(ctx context.Context, c *sd.Conn, action string, enqueue jobFunc) error {
	result := make(chan string, 1)
	_, err := enqueue(ctx, u.name, "replace", result)
	if action == "stop" && isBusError(err, "NoSuchUnit") {
		return nil // what does not exist does not run
	}
	if err != nil {
		return fmt.Errorf("%s unit %s: %w", action, u.name, err)
	}
	alive := time.NewTicker(time.Second)
	defer alive.Stop()
	for {
		select {
		case r := <-result:
			if r == "done" {
				return nil
			}
			return &UnitError{Unit: u.name, Action: action, Result: r, State: u.describe(ctx, c)}
		case <-ctx.Done():
			return fmt.Errorf("%s unit %s: systemd is still at it: %w", action, u.name, context.Cause(ctx))
		case <-alive.C:
			if !c.Connected() {
				return fmt.Errorf("%s unit %s: %w: the connection broke before the job ended", action, u.name, ErrNoSystemd)
			}
		}
	}
}

// isBusError tells systemd's errors by their registered names.
func isBusError(err error, names ...string) bool {
	var e dbus.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, n := range names {
		if e.Name == "org.freedesktop.systemd1."+n {
			return true
		}
	}
	return false
}

// describe is for a message: what cannot be had is left out.
func (u *unit) describe(ctx context.Context, c *sd.Conn) string {
	props, err := c.GetAllPropertiesContext(ctx, u.name)
	if err != nil {
		return ""
	}
	text := word(props, "ActiveState")
	if sub := word(props, "SubState"); sub != "" && sub != text {
		text += "/" + sub
	}
	if r := word(props, "Result"); r != "" && r != "success" {
		text += fmt.Sprintf(" (result %s, status %v)", r, props["ExecMainStatus"])
	}
	return text
}

func word(props map[string]any, key string) string {
	s, _ := props[key].(string)
	return s
}

// warn tells what the unit says that goes badly with an agent beside systemd.
func (u *unit) warn(props map[string]any) {
	if again := word(props, "Restart"); again != "" && again != "no" {
		u.log.Warn("systemd restarts the unit by itself, beside this agent: a drop-in with Restart=no on both nodes leaves it to one of the two", zap.String("restart", again))
	}
	us, ok := props["TimeoutStopUSec"].(uint64)
	most := time.Duration(min(us, uint64(forEver/time.Microsecond))) * time.Microsecond
	if ok && u.stopTimeout > 0 && most > u.stopTimeout {
		u.log.Warn("systemd gives the unit more time to stop than this agent, which kills it then when the node has to let go: a longer stop_timeout, or a shorter TimeoutStopSec=",
			zap.Duration("systemd", most), zap.Duration("stop_timeout", u.stopTimeout))
	}
}

// forEver is what systemd's infinity is shown as.
const forEver = 365 * 24 * time.Hour

// Monitor reports a unit that is active, or on its way there, as running. One that ended,
// and that systemd starts again by itself after a while (Restart=), does not run; one that
// it has started again since the last look is broken: what goes by units of such a kind is
// that they are always found up, and never serve.
func (u *unit) Monitor(ctx context.Context) (running bool, err error) {
	err = u.with(ctx, func(c *sd.Conn) error {
		props, err := c.GetAllPropertiesContext(ctx, u.name)
		if isBusError(err, "NoSuchUnit") {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at unit %s: %w", u.name, err)
		}
		switch word(props, "ActiveState") {
		case "active", "reloading", "refreshing":
			running = true
		case "activating":
			running = !strings.HasPrefix(word(props, "SubState"), "auto-restart")
		}
		if times := u.restartedByItself(props); running && times > 0 {
			running = false
			return broken{&UnitError{Unit: u.name, Action: "run", Result: fmt.Sprintf("it ended, and systemd started it again, %d times since the last look", times)}}
		}
		return nil
	})
	return running, err
}

// restartedByItself is how often systemd has started the unit again since the last look.
func (u *unit) restartedByItself(props map[string]any) (times int64) {
	n, ok := props["NRestarts"].(uint32)
	if !ok {
		return 0 // no service
	}
	if u.restarts != restartsUnseen {
		times = max(int64(n)-u.restarts, 0)
	}
	u.restarts = int64(n)
	return times
}
