package main

import (
	"testing"
	"time"

	"strings"

	"hapair/agent/apiv1"
	"hapair/failover/plan"
	"hapair/mirror"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// well is a pair on which everything may be rehearsed, as alpha, the Primary, or
// beta sees it.
func well(self string) *drillSight {
	s := &drillSight{kind: "crossover", resource: "pg", self: self, peer: "beta", path: "crossover", primary: "alpha", inSync: []string{"alpha", "beta"},
		reachable: 3, of: 3, takesOver: true, rests: true, hasServices: true, services: plan.Started, peerHeard: true,
		paths: map[string]string{"crossover": apiv1.MemberAlive, "lan": apiv1.MemberAlive}}
	s.mirror = mirror.View{State: state.Connected}
	s.mirror.Replication = state.Established
	s.mirror.Volumes = []engine.VolumeView{{Disk: state.UpToDate, PeerDisk: state.UpToDate}}
	if self == "beta" {
		s.peer, s.path, s.kind, s.victim, s.services = "alpha", "", apiv1.DrillAgent, "alpha", plan.Stopped
	}
	return s
}

func TestDrillIsGuarded(t *testing.T) {
	for _, self := range []string{"alpha", "beta"} {
		if p := well(self).obstacle(); p != nil {
			t.Errorf("%s: %v", self, p)
		}
	}
	for want, spoil := range map[string]func(*drillSight){
		"is not connected":            func(s *drillSight) { s.mirror.State = state.Connecting },
		"the mirror is SyncSource":    func(s *drillSight) { s.mirror.Replication = state.SyncSource },
		"the copy of alpha is Failed": func(s *drillSight) { s.mirror.Volumes[0].Disk = state.Failed },
		"the copy of beta is Incons":  func(s *drillSight) { s.mirror.Volumes[0].PeerDisk = state.Inconsistent },
		"calls 1 copies current":      func(s *drillSight) { s.inSync = s.inSync[:1] },
		"blocks differ":               func(s *drillSight) { s.unequal = "blocks differ" },
		"suspect":                     func(s *drillSight) { s.mirror.PeerSuspect = true },
		"a verify runs":               func(s *drillSight) { s.mirror.Verify.State = engine.VerifyRunning },
		"only 2 of 3 voters":          func(s *drillSight) { s.reachable = 2 },
		"does not call beta alive":    func(s *drillSight) { s.peerHeard = false },
		"maintenance is on":           func(s *drillSight) { s.maintenance = true },
		"standby":                     func(s *drillSight) { s.standby = true },
		"not at rest: it waits":       func(s *drillSight) { s.rests, s.why = false, "it waits" },
		"not as they should be: x":    func(s *drillSight) { s.services, s.servicesWhy = plan.Broken, "x" },
		"path lan to beta is dead":    func(s *drillSight) { s.paths["lan"] = apiv1.MemberDead },
		"is the only path":            func(s *drillSight) { delete(s.paths, "lan") },
		"nobody is Primary":           func(s *drillSight) { s.primary = "" },
		"beta is Primary":             func(s *drillSight) { s.primary = "beta" },
	} {
		s := well("alpha")
		spoil(s)
		if p := s.obstacle(); p == nil || !strings.Contains(p.Text, want) || p.Hint == "" {
			t.Errorf("%q: %v", want, p)
		}
	}
	for want, spoil := range map[string]func(*drillSight){
		"nobody would take over": func(s *drillSight) { s.takesOver = false },
		"beta is Primary":        func(s *drillSight) { s.primary = "beta" },
		"the services are not":   func(s *drillSight) { s.services = plan.Partial },
	} {
		s := well("beta")
		spoil(s)
		if p := s.obstacle(); p == nil || !strings.Contains(p.Text, want) {
			t.Errorf("%q: %v", want, p)
		}
	}
}

// A drill of the disk is one of the Primary's own, where its errors are nobody's.
func TestDrillOfTheDiskIsGuarded(t *testing.T) {
	disk := func(self string) *drillSight {
		s := well(self)
		s.kind, s.path, s.victim = apiv1.DrillDisk, "", ""
		return s
	}
	if p := disk("alpha").obstacle(); p != nil {
		t.Error(p)
	}
	if p := disk("beta").obstacle(); p == nil || p.Code != apiv1.CodeNotPrimary {
		t.Error(p)
	}
	s := disk("alpha")
	s.passesOn = true
	if p := s.obstacle(); p == nil || !strings.Contains(p.Text, "pass-on") {
		t.Error(p)
	}
}

// Power is cut only where the devices could.
func TestDrillOfThePowerIsGuarded(t *testing.T) {
	s := well("beta")
	s.kind = apiv1.DrillPower
	if p := s.obstacle(); p != nil {
		t.Error(p)
	}
	s.unfit = "its outlet does not answer"
	if p := s.obstacle(); p == nil || !strings.Contains(p.Text, "alpha could not be fenced now: its outlet") {
		t.Error(p)
	}
}

// The count begins with the strike: where answers came before, with the last of
// them; else with the strike itself.
func TestProbeCounts(t *testing.T) {
	at := time.Unix(1000, 0)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	p := &probe{counting: true} // on the Primary
	for _, n := range []int{0, 500, 520} {
		p.note(ms(n))
	}
	p.struck(ms(530))
	for _, n := range []int{720, 740, 1000} {
		p.note(ms(n))
	}
	if first, longest, n := p.result(); first != 200*time.Millisecond || longest != 260*time.Millisecond || n != 3 {
		t.Error(first, longest, n)
	}
	p = &probe{} // on the one that takes over
	p.struck(ms(0))
	p.note(ms(700))
	p.note(ms(720))
	if first, longest, n := p.result(); first != 700*time.Millisecond || longest != first || n != 2 {
		t.Error(first, longest, n)
	}
}

func TestPartsOfThePromotion(t *testing.T) {
	parts := partsOf([]apiv1.TimelineEntry{
		{Node: "alpha", Resource: "web", Fields: map[string]string{"entry": "promoted", "took_detect": "9s"}},
		{Node: "alpha", Resource: "pg", Fields: map[string]string{"entry": "step", "took_mirror": "9s"}},
		{Node: "alpha", Resource: "pg", Fields: map[string]string{"entry": "promoted", "took_mirror": "41ms", "took_detect": "1.5s"}},
		{Node: "alpha", Resource: "pg", Fields: map[string]string{"entry": "step", "took_mirror": "9s"}},
		{Node: "beta", Resource: "pg", Fields: map[string]string{"entry": "promoted", "took_lease": "9s"}},
	}, "alpha", "pg")
	if len(parts) != 2 || parts[0] != (apiv1.DrillPart{Name: "detect", MS: 1500}) || parts[1] != (apiv1.DrillPart{Name: "mirror", MS: 41}) {
		t.Errorf("%+v", parts)
	}
}

func TestSupervisor(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	if who := supervisor(env()); who != "" {
		t.Errorf("nobody is %q", who)
	}
	if who := supervisor(env(supervisorVariable, "runit")); who != "runit" {
		t.Error(who)
	}
	if unit := unitOf([]byte("0::/system.slice/haagent.service\n")); unit != "haagent.service" {
		t.Error(unit)
	}
	if unit := unitOf([]byte("0::/user.slice/user-0.slice/session-1.scope\n")); unit != "" {
		t.Error(unit)
	}
	for value, want := range map[string]bool{"always\n": true, "on-failure": true, "no": false, "on-success": false, "": false} {
		if restarts(value) != want {
			t.Errorf("Restart=%q", value)
		}
	}
}
