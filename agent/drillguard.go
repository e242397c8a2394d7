package main

import (
	"fmt"
	"slices"
	"strings"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/failover/plan"
	"hapair/mirror"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// drillSight is what a drill is judged by.
type drillSight struct {
	kind, resource, self, peer string
	victim, path               string

	mirror        mirror.View
	primary       string
	inSync        []string
	reachable, of int // voters
	maintenance   bool
	standby       bool   // of either data node
	takesOver     bool   // a survivor promotes itself
	passesOn      bool   // applications get the errors of a disk
	unfit         string // why the peer could not be fenced
	rests         bool   // the failover has nothing to do
	why           string
	services      plan.ServiceState // Started or Stopped as this node's role wants it
	servicesWhy   string
	hasServices   bool
	unequal       string
	paths         map[string]string // to the peer, with their states
	peerHeard     bool              // the heartbeat calls the peer alive
}

// sight looks.
func (d *drill) sight() *drillSight {
	r := d.r
	ls := r.a.ledger.Status()
	rec, _ := r.a.ledger.Record(r.name)
	st := r.control.Status()
	s := &drillSight{kind: d.kind, resource: r.name, self: r.a.self, peer: r.peer, victim: d.victim, path: d.path,
		mirror: r.mirror.View(), primary: rec.Primary, inSync: rec.InSync, reachable: ls.Reachable, of: ls.Of,
		takesOver: promotesItself(r.a.ledger.Arbitration()) && r.conf.AutoPromote, passesOn: r.conf.OnIOError == config.PassOnError, rests: inOrder(&st), why: st.Decision.Because, paths: map[string]string{}}
	maintenance, standby := marked(&ls)
	s.maintenance, s.standby = maintenance, len(standby) > 0
	if d.power() {
		s.takesOver, s.unfit = r.conf.AutoPromote, r.a.cannotFence(r.peer)
	}
	if r.group != nil {
		s.hasServices = true
		s.services, _, s.servicesWhy = services{r.group, &r.moving}.State()
	}
	s.unequal = r.unequal(&s.mirror)
	for _, m := range r.a.members() {
		if m.Name == r.peer {
			s.peerHeard = m.State == apiv1.MemberAlive
			for _, p := range m.Paths {
				s.paths[p.Name] = p.State
			}
		}
	}
	return s
}

// obstacle says why nothing must be rehearsed now, nil when it may be.
func (s *drillSight) obstacle() *apiv1.Problem {
	if p := s.wrongNode(); p != nil {
		return p
	}
	var why []string
	no := func(bad bool, format string, args ...any) {
		if bad {
			why = append(why, fmt.Sprintf(format, args...))
		}
	}
	v := &s.mirror
	no(v.State != state.Connected, "%s is not connected (%s)", s.peer, v.State)
	no(v.State == state.Connected && v.Replication != state.Established, "the mirror is %s", v.Replication)
	here, there := worst(v.Volumes, func(x engine.VolumeView) state.Disk { return x.Disk }), worst(v.Volumes, func(x engine.VolumeView) state.Disk { return x.PeerDisk })
	no(here != state.UpToDate, "the copy of %s is %s", s.self, here)
	no(there != state.UpToDate, "the copy of %s is %s", s.peer, there)
	no(len(s.inSync) != 2, "the ledger calls %d copies current", len(s.inSync))
	no(s.unequal != "", "%s", s.unequal)
	no(v.Suspect || v.PeerSuspect, "a copy is back from a crash and suspect")
	no(v.Verify.State == engine.VerifyRunning, "a verify runs")
	no(s.reachable < s.of, "only %d of %d voters are reached", s.reachable, s.of)
	no(!s.peerHeard, "the heartbeat does not call %s alive", s.peer)
	no(s.maintenance, "maintenance is on")
	no(s.standby, "a node is in standby")
	no(!s.rests, "the failover is not at rest: %s", s.why)
	no(s.hasServices && !s.servicesWell(), "the services are not as they should be: %s", s.servicesWhy)
	no(s.kind == apiv1.DrillDisk && s.passesOn, "on_io_error is pass-on: applications would get the errors of the disk")
	no(s.kind == apiv1.DrillPower && s.unfit != "", "%s could not be fenced now: %s", s.peer, s.unfit)
	no(s.victim != "" && !s.takesOver, "nobody would take over by itself (arbitration or auto_promote)")
	why = append(why, s.pathsInTheWay()...)
	if len(why) == 0 {
		return nil
	}
	return &apiv1.Problem{Code: apiv1.CodeRefused, Text: "no drill now: " + strings.Join(why, "; "), Hint: "hactl status " + s.resource}
}

// wrongNode refuses where this node cannot lead the drill.
func (s *drillSight) wrongNode() *apiv1.Problem {
	switch {
	case s.primary == "":
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: "no drill now: nobody is Primary of " + s.resource, Hint: "hactl explain " + s.resource}
	case s.victim != "" && s.primary == s.self:
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("%s is Primary: it is its agent that would fail, and who measures has to stay", s.self),
			Hint: fmt.Sprintf("hactl drill %s %s on %s", s.kind, s.resource, s.peer)}
	case (s.path != "" || s.kind == apiv1.DrillDisk) && s.primary != s.self:
		return &apiv1.Problem{Code: apiv1.CodeNotPrimary, Text: fmt.Sprintf("%s is Primary: it is there that answers are measured", s.primary),
			Hint: fmt.Sprintf("hactl drill %s %s on %s", s.kind, s.resource, s.primary)}
	}
	return nil
}

// servicesWell: they run on the Primary, and nothing of them is left elsewhere.
func (s *drillSight) servicesWell() bool {
	if s.primary == s.self {
		return s.services == plan.Started
	}
	return s.services == plan.Stopped
}

// pathsInTheWay: all paths live, and another one is left.
func (s *drillSight) pathsInTheWay() (why []string) {
	for name, state := range s.paths {
		if state != apiv1.MemberAlive {
			why = append(why, fmt.Sprintf("path %s to %s is %s", name, s.peer, state))
		}
	}
	slices.Sort(why)
	if s.path != "" && len(s.paths) < 2 {
		why = append(why, fmt.Sprintf("%s is the only path to %s", s.path, s.peer))
	}
	return why
}
