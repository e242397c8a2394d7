package play

import (
	"fmt"

	"hapair/test/script"
)

// done is what a scenario has done to the nodes, to be mended at its end.
type done struct {
	off, dead, paused, apart, ruled map[string]bool
	cut                             map[[2]string]bool
	down                            bool   // an operator demoted it
	held                            string // where a resync is paused
}

func newDone() done {
	return done{off: map[string]bool{}, dead: map[string]bool{}, paused: map[string]bool{}, apart: map[string]bool{}, ruled: map[string]bool{},
		cut: map[[2]string]bool{}}
}

// silent reports whether the agent of a node cannot answer.
func (d *done) silent(node string) bool { return d.off[node] || d.dead[node] || d.paused[node] }

// remember keeps what was done. An agent that ends forgets what its disk was told,
// that it was to stand alone and that a resync was to pause.
func (d *done) remember(a script.Action) {
	n := a.Node
	switch a.Verb {
	case script.PowerOff, script.PowerOn:
		d.off[n], d.paused[n], d.dead[n] = a.Verb == script.PowerOff, false, false
	case script.Kill, script.Stop, script.Start:
		d.dead[n], d.paused[n] = a.Verb != script.Start, false
	case script.Pause, script.Resume:
		d.paused[n] = a.Verb == script.Pause
	case script.Cut, script.Heal:
		d.cut[[2]string{n, a.Path}] = a.Verb == script.Cut
	case script.DiskFails, script.DiskHangs, script.DiskIsSlow:
		d.ruled[n] = true
	case script.Attach:
		d.ruled[n] = false
	case script.Promote, script.Demote:
		d.down = a.Verb == script.Demote
	case script.Connect, script.Disconnect:
		d.apart[n] = a.Verb == script.Disconnect
	case script.PauseSync:
		d.held = n
	case script.ResumeSync:
		d.held = ""
	default: // nothing of it stays
	}
	if d.off[n] || d.dead[n] {
		d.ruled[n], d.apart[n] = false, false
		if d.held == n {
			d.held = ""
		}
	}
}

// mend puts everything right that was done.
func (l *Lab) mend() error {
	for _, node := range []string{script.Gamma, script.Alpha, script.Beta} {
		for _, a := range l.done.remedies(node) {
			if err := l.Act(a); err != nil {
				return fmt.Errorf("mend, %s: %w", a, err)
			}
		}
	}
	if l.done.down {
		return l.operator(script.Action{Verb: script.Promote, Node: script.Alpha})
	}
	return nil
}

// remedies are what makes a node well, in order.
func (d *done) remedies(node string) (all []script.Action) {
	add := func(verbs ...script.Verb) {
		for _, v := range verbs {
			all = append(all, script.Action{Verb: v, Node: node})
		}
	}
	for _, path := range []string{script.Crossover, script.LAN} {
		if d.cut[[2]string{node, path}] {
			all = append(all, script.Action{Verb: script.Heal, Node: node, Path: path})
		}
	}
	switch {
	case d.off[node]:
		add(script.PowerOn)
	case d.dead[node]:
		add(script.Start)
	case d.paused[node]:
		add(script.Resume)
	}
	if d.ruled[node] { // a restart takes the disk into use again, and the rules away
		add(script.DiskWorks, script.Kill, script.Start)
	} else if d.apart[node] {
		add(script.Connect)
	}
	if d.held == node && !d.ruled[node] {
		add(script.ResumeSync)
	}
	return all
}
