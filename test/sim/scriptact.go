package sim

import (
	"errors"
	"fmt"
	"slices"

	"hapair/mirror/engine"
	"hapair/mirror/state"
	"hapair/test/script"
)

// Act implements script.Lab.
func (s *Scripted) Act(a script.Action) error {
	return s.do(func() error {
		s.w.logf("script: %s", a)
		if a.Verb == script.Cut || a.Verb == script.Heal {
			return s.cable(a)
		}
		if a.Node == script.Gamma {
			return s.witness(a.Verb)
		}
		n := s.w.nodes[0]
		if a.Node != n.name {
			n = n.peer()
		}
		if a.Verb < script.Cut {
			return s.machine(n, a.Verb)
		}
		if !n.up || n.paused {
			return fmt.Errorf("the agent of %s does not answer", n.name)
		}
		if a.Verb < script.Promote {
			return s.disk(n, a.Verb)
		}
		return s.operator(n, a.Verb)
	})
}

// machine does something to a box or its agent.
func (s *Scripted) machine(n *node, v script.Verb) error {
	switch {
	case v == script.PowerOff && s.off[n.i]:
		return fmt.Errorf("%s is off already", n.name)
	case v == script.PowerOff:
		s.off[n.i] = true
		s.powerOff(n)
	case v == script.PowerOn && !s.off[n.i]:
		return fmt.Errorf("%s is on already", n.name)
	case v == script.PowerOn, v == script.Start && !n.up && !s.off[n.i]:
		s.off[n.i] = false
		n.start()
	case v == script.Start:
		return fmt.Errorf("the agent of %s runs already, or the power is off", n.name)
	case !n.up:
		return fmt.Errorf("no agent runs on %s", n.name)
	case v == script.Kill:
		n.crash(false)
		n.forgetRules()
	case v == script.Pause:
		n.paused, s.mute[n.i] = true, s.w.now
	case v == script.Resume:
		n.paused = false
	case v == script.Stop:
		return s.stop(n)
	}
	return nil
}

func (s *Scripted) powerOff(n *node) {
	if n.up {
		n.crash(true)
	} else { // the agent had ended before; the cache of the disk had not
		for _, v := range n.vols {
			v.disk.powerCut(s.w.rng)
		}
		s.w.cacheLost(n)
		s.w.bothCrashed()
	}
	n.forgetRules()
}

// forgetRules: a disk fails and hangs by rules that end with the agent.
func (n *node) forgetRules() { n.dead, n.hung, n.slow = false, false, false }

// witness has no state here but whether it answers.
func (s *Scripted) witness(v script.Verb) error {
	up := v == script.PowerOn || v == script.Start || v == script.Resume
	if s.w.witness == up {
		return fmt.Errorf("the witness is as that already")
	}
	s.w.witness = up
	return nil
}

// cable pulls a cable out of a node or plugs it in. The mirror goes over the
// crossover, and over the LAN where there is none.
func (s *Scripted) cable(a script.Action) error {
	w, before, cut := s.w, s.path(), a.Verb == script.Cut
	if a.Node == script.Gamma {
		s.lan = cut
	} else {
		s.cut[slices.Index([]string{script.Alpha, script.Beta}, a.Node)][a.Path] = cut
	}
	for i := range w.aw {
		w.aw[i] = !s.lan && !s.cut[i][script.LAN]
	}
	now := s.path()
	if w.ab = now != ""; cut && now != before {
		w.endSession()
	}
	return nil
}

// path is the one the mirror takes.
func (s *Scripted) path() string {
	for _, p := range []string{script.Crossover, script.LAN} {
		if !s.cut[0][p] && !s.cut[1][p] {
			return p
		}
	}
	return ""
}

// disk gives the disks of a node a rule, or takes it away.
func (s *Scripted) disk(n *node, v script.Verb) error {
	switch v {
	case script.DiskFails:
		n.dead = true
	case script.DiskHangs:
		n.hung, s.hung[n.i] = true, s.w.now
	case script.DiskIsSlow:
		n.slow = true
	default:
		n.forgetRules()
	}
	return nil
}

// operator asks what hactl asks.
func (s *Scripted) operator(n *node, v script.Verb) error {
	switch v {
	case script.Promote:
		return s.promote(n)
	case script.Demote:
		err := s.demote(n)
		s.down = s.down || err == nil
		return err
	case script.Switchover:
		return s.switchover(n)
	case script.Connect, script.Disconnect:
		n.standAlone = v == script.Disconnect
		s.w.doomed = s.w.doomed || n.standAlone && s.w.alive != 0
		return nil
	case script.Attach:
		if !s.until(scriptPeerTimeout, func() bool { return n.eng.MayAttach() == nil }) {
			return refuse("%w", n.eng.MayAttach())
		}
		return s.asked(n, engine.Attach, n.attach)
	case script.Invalidate:
		return s.asked(n, engine.Invalidate, func() { s.w.invalidate(n) })
	case script.PauseSync:
		return s.asked(n, engine.Pause, func() { n.step(&engine.Event{Kind: engine.Pause}) })
	case script.ResumeSync:
		return s.asked(n, engine.Resume, func() { n.step(&engine.Event{Kind: engine.Resume}) })
	case script.Verify, script.Repair:
		s.w.verifies = true
		o := engine.VerifyOrder{Volume: engine.AllVolumes, Repair: v == script.Repair}
		return s.asked(n, engine.Verify, func() { n.step(&engine.Event{Kind: engine.Verify, Verify: o}) })
	default:
		return fmt.Errorf("verb %d is not implemented here", v)
	}
}

// asked gives the engine a command and waits for its reply.
func (s *Scripted) asked(n *node, kind engine.EventKind, give func()) error {
	var answer error
	replied := false
	s.reply = func(m *node, of engine.EventKind, err error) {
		if m == n && of == kind {
			replied, answer = true, err
		}
	}
	defer func() { s.reply = nil }()
	give()
	switch {
	case !s.until(scriptPatience, func() bool { return replied }):
		return fmt.Errorf("no reply to command %d within %s", kind, scriptPatience)
	case answer != nil:
		return refuse("%w", answer)
	}
	return nil
}

// demote has the front end end first: nothing is in flight then.
func (s *Scripted) demote(n *node) error {
	if n.eng.View().Role != state.Primary {
		return refuse("%s is not Primary", n.name)
	}
	load := s.load
	s.load = false
	defer func() { s.load = load }()
	if !s.until(scriptPatience, func() bool {
		v := n.eng.View()
		return n.command == 0 && v.InFlight+v.Waiting == 0
	}) {
		return refuse("I/O of %s is frozen", n.name)
	}
	return s.asked(n, engine.Demote, func() { n.run(&engine.Event{Kind: engine.Demote}) })
}

// promote asks for a node where nobody is Primary. What passes by itself is waited
// for; a rule that forbids it refuses at once.
func (s *Scripted) promote(n *node) error {
	s.only = n
	defer func() { s.only = nil }()
	if !s.until(scriptPatience, func() bool { return s.w.primary() == n || s.forbids(n) != nil }) {
		return fmt.Errorf("%s was not promoted within %s: %s", n.name, scriptPatience, s.w.mayNot(n))
	}
	if err := s.forbids(n); err != nil {
		return err
	}
	s.down = false
	return nil
}

// forbids says which rule keeps a node from being promoted, and will go on to.
func (s *Scripted) forbids(n *node) error {
	p, r := n.peer(), s.w.record
	v := n.eng.View()
	switch {
	case v.Role == state.Primary || !s.w.quorum(n):
		return nil
	case r.Primary == p.name && p.holdsPen() && !p.paused && s.w.ab:
		return refuse("%s is Primary and holds its lease", p.name)
	case !slices.Contains(r.InSync, n.name):
		return refuse("the ledger does not call the copy of %s current", n.name)
	case n.broken() || !n.serves() && v.Replication != state.SyncTarget:
		return refuse("the copy of %s is not UpToDate", n.name)
	case v.Suspect && s.w.ab && p.serves() && slices.Contains(r.InSync, p.name) && !p.eng.View().Suspect:
		return refuse("%s crashed, and %s, in sync, did not", n.name, p.name)
	}
	return nil
}

// switchover hands over to a node; it is refused before anything is given up.
func (s *Scripted) switchover(n *node) error {
	p := n.peer()
	if !p.up || s.w.primary() != p {
		return refuse("%s is not Primary", p.name)
	}
	if v := p.eng.View(); !v.Connected || n.session != s.w.alive || !n.serves() || !slices.Contains(s.w.record.InSync, n.name) || n.eng.View().Suspect && !v.Suspect {
		return refuse("%s cannot take it", n.name)
	}
	s.only = n
	defer func() { s.only = nil }()
	if err := s.demote(p); err != nil {
		return err
	}
	if !s.until(scriptPatience, func() bool { return s.w.primary() == n }) {
		return errors.New("it was handed over and not taken")
	}
	return nil
}

// stop ends an agent in order: a Primary hands over first.
func (s *Scripted) stop(n *node) error {
	s.left = n
	defer func() { s.left = nil }()
	if n.eng.View().Role == state.Primary {
		if err := s.demote(n); err != nil {
			return err
		}
	}
	life := n.life
	n.run(&engine.Event{Kind: engine.Detach})
	if !s.until(scriptPatience, func() bool { return n.life != life }) {
		return fmt.Errorf("%s does not stop", n.name)
	}
	n.forgetRules()
	return nil
}
