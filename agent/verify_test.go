package main

import (
	"os"
	"testing"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/mirror"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// keeper is the verifier of a resource without a mirror.
func keeper(t *testing.T, dir string) *verifier {
	t.Helper()
	a := &agent{cfg: &config.Config{StateDir: dir}, self: "alpha", log: zap.NewNop()}
	return newVerifier(&resource{a: a, name: "pg", peer: "beta", conf: &config.Resource{Name: "pg"}})
}

const gib = 1 << 30

// What was proven, and the verify that ran, outlive a restart.
func TestProvenOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	v := keeper(t, dir)
	if p := v.provenStatus(0, gib); p.Oldest != nil || p.Bytes != 0 || len(p.RegionsAgeS) != 16 || p.RegionsAgeS[3] != -1 {
		t.Fatalf("a new one: %+v", p)
	}
	unit := engine.RegionBytes(gib)
	for at := int64(0); at < gib; at += unit {
		if at != unit {
			v.proven(0, gib, at)
		}
	}
	v.mu.kept.Run = &keptRun{Began: time.Now(), Volume: mirror.AllVolumes, Repair: true, Rate: 7, At: mirror.VerifyPosition{Offset: 3 * unit}}
	if err := v.save(); err != nil {
		t.Fatal(err)
	}
	again := keeper(t, dir)
	p := again.provenStatus(0, gib)
	if p.Oldest != nil || p.Bytes != gib-unit || p.RegionsAgeS[1] != -1 || p.RegionsAgeS[0] < 0 {
		t.Fatalf("after a restart: %+v", p)
	}
	again.proven(0, gib, unit)
	if p := again.provenStatus(0, gib); p.Oldest == nil || p.Bytes != gib {
		t.Fatalf("complete: %+v", p)
	}
	run, unfinished := again.unfinished()
	if !unfinished || !run.Repair || run.Rate != 7 || run.At.Offset != 3*unit {
		t.Fatalf("the verify that ran: %+v, %t", run, unfinished)
	}
	s := apiv1.Verify{State: apiv1.VerifyNone}
	if again.fill(&s); s.State != apiv1.VerifyRunning || s.Waits == "" || !s.Repair || s.Began == nil {
		t.Fatalf("status of a verify that is to go on: %+v", s)
	}
	if !again.forget() || again.forget() {
		t.Fatal("it is forgotten once")
	}
	if at := again.stoppedAt(); at == nil || at.Offset != 3*unit {
		t.Fatalf("stopped at %+v", at)
	}
	if p := again.provenStatus(0, 2*gib); p.Bytes != 0 {
		t.Fatalf("a volume of another size: %+v", p)
	}
}

// A file that cannot be read costs what was in it, and no more.
func TestDamagedProvenIsBegunAnew(t *testing.T) {
	dir := t.TempDir()
	v := keeper(t, dir)
	v.proven(0, gib, 0)
	if err := v.save(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"{", `{"format":9}`, "null", ""} {
		if err := os.WriteFile(v.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		again := keeper(t, dir)
		if p := again.provenStatus(0, gib); p.Bytes != 0 {
			t.Errorf("%q: %+v", text, p)
		}
		again.proven(0, gib, 0)
		if err := again.save(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The peer's newer word counts; nothing of the future or of another size does.
func TestProvenIsLearntFromThePeer(t *testing.T) {
	a, b := keeper(t, t.TempDir()), keeper(t, t.TempDir())
	a.proven(0, gib, 0)
	a.mu.kept.Full = time.Now().Add(-time.Hour)
	n := a.news(0, gib)
	n.Kept.ProvenAt[1] = time.Now().Add(time.Hour).Unix()
	now := time.Now()
	if !b.learn(&n, gib, now) {
		t.Fatal("not taken")
	}
	p := b.provenStatus(0, gib)
	if p.RegionsAgeS[0] < 0 || p.RegionsAgeS[1] < 0 || p.RegionsAgeS[2] != -1 || b.mu.kept.Volumes["0"].ProvenAt[1] > now.Unix() {
		t.Fatalf("%+v", p)
	}
	if !b.mu.kept.Full.Equal(a.mu.kept.Full) {
		t.Fatalf("the latest verify began %s", b.mu.kept.Full)
	}
	if n.Kept.SizeBytes = 2 * gib; b.learn(&n, gib, now) {
		t.Fatal("a volume of another size was taken")
	}
}

func TestVerifyIsDue(t *testing.T) {
	v := keeper(t, t.TempDir())
	now := time.Now()
	for _, c := range []struct {
		name string
		full time.Time
		run  *keptRun
		want bool
	}{
		{"never", time.Time{}, nil, true},
		{"lately", now.Add(-time.Hour), nil, false},
		{"long ago", now.Add(-25 * time.Hour), nil, true},
		{"long ago, and one waits to go on", now.Add(-25 * time.Hour), &keptRun{Began: now}, false},
		{"the clock was set back", now.Add(time.Hour), nil, true},
	} {
		v.mu.kept.Full, v.mu.kept.Run = c.full, c.run
		if got := v.due(now, 24*time.Hour); got != c.want {
			t.Errorf("%s: due %t", c.name, got)
		}
	}
}

func TestRefusalsOfAVerify(t *testing.T) {
	view := func(role, peer state.Role, c state.Connection) mirror.View {
		v := mirror.View{State: c}
		v.Role, v.PeerRole, v.Volumes = role, peer, []engine.VolumeView{{}}
		return v
	}
	one := 1
	for _, c := range []struct {
		name string
		view mirror.View
		q    apiv1.VerifyRequest
		code string
	}{
		{"volume", view(state.Primary, state.Secondary, state.Connected), apiv1.VerifyRequest{Volume: &one}, apiv1.CodeNotFound},
		{"peer away", view(state.Primary, state.RoleUnknown, state.Connecting), apiv1.VerifyRequest{}, apiv1.CodePeerAway},
		{"Secondary", view(state.Secondary, state.Primary, state.Connected), apiv1.VerifyRequest{}, apiv1.CodeNotPrimary},
		{"repair of two Secondaries", view(state.Secondary, state.Secondary, state.Connected), apiv1.VerifyRequest{Repair: true}, apiv1.CodeNotPrimary},
		{"two Secondaries", view(state.Secondary, state.Secondary, state.Connected), apiv1.VerifyRequest{}, ""},
		{"Primary", view(state.Primary, state.Secondary, state.Connected), apiv1.VerifyRequest{Repair: true}, ""},
	} {
		k := copies{resource: "pg", self: "alpha", peer: "beta", mirror: c.view}
		got := ""
		if p := k.mayVerify(c.q); p != nil {
			got = p.Code
		}
		if got != c.code {
			t.Errorf("%s: %q, want %q", c.name, got, c.code)
		}
	}
}
