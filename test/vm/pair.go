package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"hapair/test/lab"
	"hapair/test/script"
)

// doTimeout bounds what a guest is asked to do.
const doTimeout = 3 * time.Minute

// Resource implements play.Pair.
func (l *Lab) Resource() string { return resource }

// Say implements play.Pair.
func (l *Lab) Say(format string, args ...any) { l.Options.Say(format, args...) }

// signals are what the agent's process is told, by verb.
var signals = map[script.Verb]syscall.Signal{script.Kill: syscall.SIGKILL, script.Stop: syscall.SIGTERM, script.Pause: syscall.SIGSTOP, script.Resume: syscall.SIGCONT}

// rules are what a disk is told, by verb.
var rules = map[script.Verb]string{
	script.DiskFails: "read,write,flush,discard,write-zeroes err=io", script.DiskHangs: "read,write,flush,discard,write-zeroes hang",
	script.DiskIsSlow: fmt.Sprintf("write,flush delay=%dms", 30*slow),
}

// Do implements play.Pair.
func (l *Lab) Do(a script.Action) error {
	ctx, cancel := context.WithTimeout(context.Background(), doTimeout)
	defer cancel()
	m := l.machines[a.Node]
	switch a.Verb {
	case script.PowerOff:
		before := m.lost
		err := errors.Join(m.powerOff(), l.carrier(a.Node))
		l.Say("the disks of %s lose %d KiB that nobody had flushed", a.Node, (m.lost-before)>>10)
		return err
	case script.PowerOn:
		err := m.powerOn(ctx)
		if err == nil {
			err = errors.Join(l.carrier(a.Node), m.do(ctx, "/agent/start", nil))
		}
		return err
	case script.Cut, script.Heal:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.cut[[2]string{a.Node, a.Path}] = a.Verb == script.Cut
		if !m.isOn() {
			return nil
		}
		return m.cable(a.Path, a.Verb == script.Heal)
	case script.Start:
		m.disks[0].works() // in the other labs it is the agent that has the faults
		return m.do(ctx, "/agent/start", nil)
	case script.DiskWorks:
		m.disks[0].works()
		return nil
	default:
		if s, ok := signals[a.Verb]; ok {
			return m.do(ctx, "/agent/signal?sig="+strconv.Itoa(int(s)), nil)
		}
		if rule := rules[a.Verb]; rule != "" {
			return m.disks[0].tell(rule)
		}
	}
	return fmt.Errorf("%s: not implemented in this lab", a)
}

// carrier gives every card what it sees of its cable after a machine was switched on
// or off: the crossover is dark when the box at its other end is off.
func (l *Lab) carrier(changed string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, name := range []string{script.Alpha, script.Beta} {
		m, peer := l.machines[name], l.machines[script.Peer(name)]
		if !m.isOn() {
			continue
		}
		cut := l.cut[[2]string{name, script.Crossover}]
		errs = append(errs, m.cable(script.Crossover, !cut && peer.isOn()))
	}
	if m := l.machines[changed]; m.isOn() && l.cut[[2]string{changed, script.LAN}] {
		errs = append(errs, m.cable(script.LAN, false))
	}
	return errors.Join(errs...)
}

// Call implements play.Pair.
func (l *Lab) Call(ctx context.Context, node, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	resp, err := l.machines[node].request(ctx, method, "/api"+path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end or given up
	return lab.Answer(node, resp, out)
}
