package plan

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"hapair/failover/lease"
	"hapair/mirror/state"
)

func anyView(t *rapid.T) View {
	b := func(name string) bool { return rapid.Bool().Draw(t, name) }
	at := func(name string) time.Duration {
		return time.Duration(rapid.IntRange(0, 100).Draw(t, name)) * time.Second
	}
	disk := func(name string) state.Disk {
		return state.Disk(rapid.SampledFrom([]int{0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7}).Draw(t, name))
	}
	failed := func(whose string) Failures {
		f := Failures{Count: rapid.IntRange(0, 4).Draw(t, whose+"failures"), Limit: 3, At: at(whose + "failed")}
		f.Until = f.At + time.Minute
		return f
	}
	node := func(name string) string { return rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(t, name) }
	s := Defaults()
	s.Run, s.HasServices, s.Preferred = b("run"), b("has services"), node("preferred")
	s.Arbitration = Arbitration(rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(t, "arbitration"))
	v := View{Resource: "pg", Now: at("now"), Started: at("started"), Settings: s}
	v.Self = Node{
		Name: "n1", Role: state.Role(rapid.IntRange(1, 2).Draw(t, "role")), Disk: disk("disk"), Suspect: b("suspect"),
		Standby: b("standby"), AssumeClean: b("clean"), Failed: failed(""),
	}
	v.Peer = Peer{
		Name: "n2", Verdict: Verdict(rapid.IntRange(0, 3).Draw(t, "verdict")), Since: at("peer since"),
		Role: state.Role(rapid.IntRange(0, 2).Draw(t, "peer role")), Disk: disk("peer disk"), Suspect: b("peer suspect"),
		Standby: b("peer standby"), AssumeClean: b("peer clean"), Failed: failed("peer "),
	}
	v.Mirror = Mirror{
		Connection: state.Connection(rapid.IntRange(0, 3).Draw(t, "connection")), Since: at("mirror since"),
		Replication: state.Replication(rapid.IntRange(0, 6).Draw(t, "replication")), SplitBrain: b("split brain"), Forwards: b("forwards"),
		Unopened: b("unopened"),
	}
	v.Peer.Told = v.Mirror.Connection == state.Connected && b("told")
	v.Ledger = Ledger{Known: b("known"), Quorum: b("quorum"), Answers: b("answers"), Alone: b("alone"), Split: b("split"), Since: at("ledger since")}
	if v.Ledger.Known && b("declared") { // what is not known is empty
		tenure := lease.Token(rapid.IntRange(1, 3).Draw(t, "tenure"))
		v.Ledger.Record = Record{
			Token: tenure + lease.Token(rapid.IntRange(0, 2).Draw(t, "token")), Tenure: tenure, Primary: node("primary"), LastPrimary: node("last"),
			InSync: rapid.SampledFrom([][]string{{"n1"}, {"n2"}, {"n1", "n2"}}).Draw(t, "in sync"),
		}
	}
	v.Tenure = lease.Token(rapid.IntRange(0, 3).Draw(t, "granted"))
	v.Self.Tenure = lease.Token(rapid.IntRange(0, 3).Draw(t, "mirror tenure"))
	v.Owed = v.Ledger.Record.Primary == "n1" && b("owed")
	v.Lease = Lease{
		Asked: b("asked"), PeerLapsed: b("lapsed"), MajorityLapsed: b("majority"), LookedAt: at("looked"), LapsedSince: at("lapsed since"),
		Own: lease.Lease{Tenure: lease.Token(rapid.IntRange(0, 3).Draw(t, "lease tenure")), Until: at("until")},
	}
	v.Services = Services{State: ServiceState(rapid.IntRange(0, 3).Draw(t, "services")), StopFailed: b("stop failed")}
	v.Wish = Wish{Kind: WishKind(rapid.IntRange(0, 3).Draw(t, "wish")), Target: rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "target"), Force: b("force"), Since: at("wished")}
	v.Hint = Hint{Take: b("take"), From: "n2", Until: at("hint until")}
	v.Trouble = Trouble{Step: Kind(rapid.IntRange(0, int(AbortLost)).Draw(t, "trouble")), Count: rapid.IntRange(0, 2).Draw(t, "count"), At: at("trouble at")}
	if s.Preferred != "" && b("failback") {
		v.Settings.FailbackAfter = time.Minute
	}
	v.Failback = Failback{Fit: at("fit"), Stay: b("stay"), Tries: rapid.IntRange(0, 3).Draw(t, "tries")}
	v.Fence = Fence{
		State: FenceState(rapid.SampledFrom([]int{0, 0, 1, 2, 3, 4}).Draw(t, "fence")), Since: at("fence since"), May: rapid.SampledFrom([]string{"", "", "not met"}).Draw(t, "may"),
		Failures: rapid.IntRange(0, 9).Draw(t, "fence failures"), First: b("first"),
	}
	v.Hinted, v.Maintenance, v.Down, v.Tried = b("hinted"), b("maintenance"), b("down"), b("tried")
	likely(t, &v, b)
	return v
}

// likely has a view be, but for one thing, what is seldom met by chance.
func likely(t *rapid.T, v *View, b func(string) bool) {
	switch {
	case b("nearly"):
		nearly(v, rapid.IntRange(0, 40).Draw(t, "but for"))
	case b("nearly fenced"):
		nearlyFenced(v, b("primary"), rapid.IntRange(0, 30).Draw(t, "but for"))
	case b("nearly in maintenance"):
		nearlyMaintained(v, rapid.IntRange(0, 20).Draw(t, "but for"))
	}
}

// TestNextKeepsTheRules states the rules a second time, apart from the code
// that follows them, over arbitrary views.
func TestNextKeepsTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyView(t)
		d := Next(v)
		r := v.Ledger.Record
		for i, s := range d.Steps {
			switch s.Kind {
			case LedgerPromote, LedgerForce:
				promotionIsAllowed(t, v, s.Kind, i)
			case MirrorPromote, StartServices:
				leavesAlone(t, v, s.Kind, i)
				if i == 0 && !(r.Primary == "n1" && v.Tenure == r.Tenure && v.Lease.Own.Tenure == r.Tenure && v.Now < v.Lease.Own.Until) {
					t.Fatalf("%v without a valid lease of the present tenure", s)
				}
				if i == 0 && s.Kind == StartServices && v.Self.Role != state.Primary {
					t.Fatalf("services on a Secondary")
				}
			case RestartServices, StopServices:
				leavesAlone(t, v, s.Kind, i)
			case GoAlone:
				if v.Settings.Arbitration == Fencing {
					goesAloneFenced(t, v, d, i)
				} else if v.Settings.Arbitration != Manual || v.Self.Role != state.Primary && !v.Self.Disk.CanServe() || r.Primary != "n1" || v.Tenure != r.Tenure || v.Peer.Verdict == Alive {
					t.Fatal("goes alone without being the Primary of a manual pair whose peer is gone")
				}
			case FencePeer:
				fenceIsDue(t, v, i)
			case LedgerDemote, HandOver:
				if v.Fence.State.Undecided() && d.First().Kind != AbortLost {
					t.Fatal("hands over while a fence is undecided (rule R24)")
				}
			case ForceAlone:
				if v.Wish.Kind != Promote || !v.Wish.Force {
					t.Fatal("alone without an order")
				}
				if v.Ledger.Quorum || v.Ledger.Answers && v.Now < v.Wish.Since+v.Settings.HandOverGrace {
					t.Fatal("alone although a majority is there, or may be")
				}
			}
		}
		wellFormed(t, v, d)
		authority(t, v, d)
	})
}

func promotionIsAllowed(t *rapid.T, v View, k Kind, position int) {
	r := v.Ledger.Record
	forced := v.Wish.Kind == Promote && v.Wish.Force
	if r.Primary == "n2" && !v.Lease.PeerLapsed {
		t.Fatalf("%v while the other's lease may be held", k)
	}
	if r.Primary == "n2" && !v.Lease.MajorityLapsed && (position == 0 || !forced) {
		t.Fatalf("%v while no majority says that the other's lease has lapsed", k)
	}
	if k == LedgerForce || forced {
		if !forced {
			t.Fatal("forced without an order")
		}
		if position == 0 && !v.Ledger.Quorum {
			t.Fatal("forced into a ledger without a quorum")
		}
		return
	}
	healthy := r.Has("n2") && (v.Mirror.Connection == state.Connected || v.Peer.Verdict == Alive || v.Peer.Verdict == Suspected)
	if v.Peer.Told && (v.Peer.Suspect || !v.Peer.Disk.CanServe()) {
		healthy = false
	}
	switch {
	case !v.Ledger.Known || !v.Ledger.Quorum:
		t.Fatal("promoted without a quorum")
	case !r.Has("n1"):
		t.Fatal("promoted a copy that is not in sync")
	case !v.Self.Disk.CanServe():
		t.Fatal("promoted a disk that cannot serve")
	case v.Self.Suspect && healthy:
		t.Fatal("promoted a suspect node beside a healthy one (rule R8)")
	case position == 0 && v.Peer.Told && v.Peer.Role == state.Primary:
		t.Fatal("promoted beside a connected Primary")
	case v.Wish.Kind == NoWish && !v.Hint.Take && r.Primary != "n1" && (v.Maintenance || v.Self.Standby || v.Down || !v.Settings.Run):
		t.Fatal("promoted by itself although told not to")
	case v.Settings.Arbitration != Witness && r.Primary == "n2" && v.Wish.Kind == NoWish && !v.Hint.Take && !v.Peer.Told:
		t.Fatal("a Secondary of a pair without a witness took over from a Primary it does not see")
	}
}

// leavesAlone: in maintenance the services of a Primary whose lease holds are touched
// for a promotion, once, and for who leaves.
func leavesAlone(t *rapid.T, v View, k Kind, position int) {
	alone := position == 0 && v.Maintenance && v.Tried && v.Self.Tenure == v.Ledger.Record.Tenure && v.Self.Role == state.Primary
	if alone && k != MirrorPromote && v.Wish.Kind != Demote && v.Wish.Kind != Switchover {
		t.Fatalf("%v in maintenance", k)
	}
}

// goesAloneFenced: rule R22, only a confirmed fence counts. Within the way to the
// goal it comes after the fence, which then has to be confirmed.
func goesAloneFenced(t *rapid.T, v View, d Decision, position int) {
	switch {
	case position == 0 && v.Fence.State != FenceConfirmed:
		t.Fatal("goes alone without a confirmed fence")
	case position > 0 && d.Steps[position-1].Kind != FencePeer:
		t.Fatal("goes alone without a fence before")
	case v.Ledger.Quorum || v.Ledger.Answers:
		t.Fatal("goes alone beside a peer that votes")
	}
}

// fenceIsDue states who fences whom, and when.
func fenceIsDue(t *rapid.T, v View, position int) {
	r := v.Ledger.Record
	asked := v.Wish.Kind == Promote || v.Wish.Kind == Switchover
	switch {
	case position != 0:
		t.Fatal("a fence in the middle of something")
	case v.Settings.Arbitration != Fencing || v.Ledger.Quorum || v.Ledger.Answers || !v.Ledger.Known:
		t.Fatal("fences what it does not need to")
	case v.Peer.Verdict != Dead || v.Mirror.Connection == state.Connected:
		t.Fatal("fences a peer that is there, or may be")
	case v.Fence.May != "":
		t.Fatal("fences although it may not (rule R25)")
	case v.Fence.State != FenceNone && v.Fence.State != FenceFailed:
		t.Fatalf("fences again while it is %v", v.Fence.State)
	case v.Maintenance:
		t.Fatal("fences in maintenance")
	case !r.Has("n1"):
		t.Fatal("fences with a copy that is not current")
	case !v.Fence.First && v.Now < max(v.Peer.Since, v.Mirror.Since)+v.Settings.FenceDelay:
		t.Fatal("does not let the Primary go first (rule R24)")
	case r.Primary == "n1" && (v.Self.Role != state.Primary && !v.Self.Disk.CanServe() || !v.mine() || v.leaseValid()):
		t.Fatal("fences as a Primary that it is not, or that serves")
	case r.Primary == "n2" && (v.Self.Suspect || !v.Self.Disk.CanServe() || v.diverged()):
		t.Fatal("fences a Primary that it cannot take over from")
	case r.Primary == "n2" && !asked && (v.Self.Standby || v.Down || !v.Settings.Run):
		t.Fatal("fences a Primary that it is not to take over from")
	case r.Primary != "n1" && r.Primary != "n2":
		t.Fatal("fences although nobody is Primary")
	}
}

func wellFormed(t *rapid.T, v View, d Decision) {
	switch {
	case d.Because == "" || d.Code == "":
		t.Fatalf("no reason: %+v", d)
	case d.At != 0 && d.At <= v.Now:
		t.Fatalf("asks to be asked again in the past: %+v", d)
	case d.Refused != nil && v.Wish.Kind == NoWish:
		t.Fatalf("refuses what nobody asked: %+v", d)
	case d.Refused != nil && len(d.Steps) > 0:
		t.Fatalf("refuses and acts: %+v", d)
	}
}

// authority checks both sides of it: what lost it goes, what has it stays.
func authority(t *rapid.T, v View, d Decision) {
	r := v.Ledger.Record
	first := d.First().Kind
	if v.Ledger.Known && r.Primary == "n2" && v.Self.Role == state.Primary && first != AbortLost && d.Code != CodeRetry {
		t.Fatalf("a Primary beside the Primary of the record is not aborted but %+v", d)
	}
	settled := v.Ledger.Known && r.Primary == "n1" && v.Tenure != 0 && v.Tenure == r.Tenure && v.Self.Role == state.Primary && v.Self.Tenure == r.Tenure &&
		v.Lease.Asked && v.Lease.Own.Tenure == r.Tenure && v.Now < v.Lease.Own.Until &&
		!v.Mirror.Unopened && (v.Services.State == Started || !v.Settings.HasServices) && v.Wish.Kind != Demote && v.Wish.Kind != Switchover && !v.Self.Standby && v.Self.Disk.CanServe()
	if first == GoBack && (!settled || v.Maintenance || v.Settings.Preferred != "n2" || v.Mirror.Replication != state.Established ||
		v.Peer.Verdict != Alive || v.Failback.Stay || v.Now < v.Failback.Fit+time.Minute) {
		t.Fatalf("goes back from %+v", v)
	}
	if v.Mirror.Unopened && v.mine() && v.Self.Role == state.Primary && (d.Code == CodeSettled || first == StartServices || first == RestartServices || first == GoBack) {
		t.Fatalf("a Primary without its devices goes on as if it had them: %+v", d)
	}
	if settled && len(d.Steps) > 0 && first != GoBack {
		t.Fatalf("a Primary that holds its lease and does its work is not left alone: %+v", d)
	}
	frozen := v.mine() && v.Wish.Kind == NoWish && v.Self.Role == state.Primary && v.Lease.Asked && !v.leaseValid()
	if frozen && v.Ledger.Known && len(d.Steps) > 0 && first != GoAlone && first != FencePeer {
		t.Fatalf("a frozen Primary is torn down: %+v", d)
	}
}

// TestBothChooseTheSame is what keeps an election without a message: two
// connected nodes that know the same name the same one.
func TestBothChooseTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anyView(t)
		a.Self.Failed, a.Peer.Failed = Failures{}, Failures{}
		a.Self.Disk, a.Peer.Disk = state.UpToDate, state.UpToDate
		a.Self.Standby, a.Peer.Standby = false, false
		a.Mirror.Replication = state.Established
		b := a
		b.Self.Name, b.Peer.Name = "n2", "n1"
		b.Self.Suspect, b.Peer.Suspect = a.Peer.Suspect, a.Self.Suspect
		one, why := choose(a)
		two, because := choose(b)
		// the healthy one is chosen by itself; the suspect one never gets to choose (rule R8)
		if a.Self.Suspect == a.Peer.Suspect && one != two {
			t.Fatalf("n1 says %s (%s), n2 says %s (%s)", one, why, two, because)
		}
	})
}

func TestPreempts(t *testing.T) {
	by := func(s Step) Decision { return Decision{Steps: []Step{s}} }
	lost, stop, forced := by(Step{Kind: AbortLost}), by(Step{Kind: StopServices}), by(Step{Kind: StopServices, Force: true})
	for k := Nothing; k <= AbortLost; k++ {
		s, start := Step{Kind: k}, k == StartServices || k == RestartServices
		if got, want := lost.Preempts(s), k != AbortLost; got != want {
			t.Errorf("lost authority breaks off %v: %v", k, got)
		}
		if got := stop.Preempts(s); got != start {
			t.Errorf("a stop breaks off %v: %v", k, got)
		}
		if got, want := forced.Preempts(s), start || k == StopServices; got != want {
			t.Errorf("a stop by force breaks off %v: %v", k, got)
		}
		if (Decision{}).Preempts(s) {
			t.Errorf("a wait breaks off %v", k)
		}
	}
	if s := (Step{Kind: StopServices, Force: true}); stop.Preempts(s) || forced.Preempts(s) {
		t.Error("a stop by force is broken off")
	}
}

func TestSettings(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Settings){
		"arbitration": func(s *Settings) { s.Arbitration = 9 },
		"threshold":   func(s *Settings) { s.Failures.Threshold = 0 },
		"poll":        func(s *Settings) { s.LapsePoll = 0 },
		"grace":       func(s *Settings) { s.ColdGrace = 48 * time.Hour },
		"window":      func(s *Settings) { s.Failures.Within = 3 * time.Second },
		"memory":      func(s *Settings) { s.Failures.Forget = 3 * time.Second },
	} {
		s := Defaults()
		spoil(&s)
		if s.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
