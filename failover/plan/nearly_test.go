package plan

import (
	"time"

	"hapair/failover/lease"
	"hapair/mirror/state"
)

// nearly makes the view one that leads to a takeover, but for one field that
// keeps what was drawn: arbitrary views seldom get that far.
func nearly(v *View, except int) {
	but(except, []func(){
		func() { v.Ledger.Known = true },
		func() { v.Ledger.Quorum = true },
		func() { v.Ledger.Record = Record{Token: 3, Tenure: 2, Primary: "n2", InSync: []string{"n1", "n2"}} },
		func() { v.Lease.PeerLapsed = true },
		func() { v.Lease.MajorityLapsed = true },
		func() { v.Self.Disk = state.UpToDate },
		func() { v.Self.Role = state.Secondary },
		func() { v.Self.Suspect = false },
		func() { v.Services.State = Stopped },
		func() { v.Settings.Run = true },
		func() { v.Settings.Arbitration = Witness },
		func() { v.Self.Standby = false },
		func() { v.Maintenance = false },
		func() { v.Down = false },
		func() { v.Mirror.SplitBrain, v.Ledger.Split = false, false },
		func() { v.Mirror.Replication = state.Established },
		func() { v.Peer.Role = state.Secondary },
		func() { v.Wish.Kind = NoWish },
		func() { v.Trouble.Count = 0 },
		func() { v.Lease.Asked = false },
		func() { v.Started, v.Now = 0, 100*time.Second },
	})
}

// nearlyFenced is the same for a fence, by the Primary or the Secondary.
func nearlyFenced(v *View, primary bool, except int) {
	v.Settings.Arbitration, v.Now = Fencing, 103*time.Second
	who := map[bool]string{true: "n1", false: "n2"}[primary]
	but(except, []func(){
		func() {
			v.Ledger.Known, v.Ledger.Record = true, Record{Token: 3, Tenure: 2, Primary: who, InSync: []string{"n1", "n2"}}
		},
		func() { v.Ledger.Quorum = false },
		func() { v.Ledger.Answers = false },
		func() { v.Self.Role = map[bool]state.Role{true: state.Primary, false: state.Secondary}[primary] },
		func() { v.Tenure, v.Self.Tenure, v.Lease.Asked = 2, 2, primary },
		func() { v.Lease.Own = lease.Lease{Tenure: 2, Until: time.Second} },
		func() { v.Peer.Verdict = Dead },
		func() { v.Mirror.Connection, v.Peer.Told = state.Connecting, false },
		func() { v.Self.Disk = state.UpToDate },
		func() { v.Self.Suspect = false },
		func() { v.Services.State = Stopped },
		func() { v.Settings.Run = true },
		func() { v.Self.Standby = false },
		func() { v.Maintenance = false },
		func() { v.Down = false },
		func() { v.Mirror.SplitBrain, v.Ledger.Split = false, false },
		func() { v.Mirror.Replication = state.Off },
		func() { v.Wish.Kind = NoWish },
		func() { v.Trouble.Count = 0 },
		func() { v.Fence.State, v.Fence.Failures = FenceNone, 0 },
		func() { v.Fence.May = "" },
		func() { v.Owed = false },
		func() { v.Fence.First = primary },
	})
}

// nearlyMaintained is the same for a Primary in maintenance whose services were
// started, and do not run.
func nearlyMaintained(v *View, except int) {
	but(except, []func(){
		func() {
			v.Ledger.Known, v.Ledger.Record = true, Record{Token: 3, Tenure: 2, Primary: "n1", InSync: []string{"n1", "n2"}}
		},
		func() { v.Tenure, v.Self.Tenure, v.Self.Role = 2, 2, state.Primary },
		func() { v.Lease.Asked, v.Lease.Own = true, lease.Lease{Tenure: 2, Until: time.Hour} },
		func() { v.Fence.State, v.Owed = FenceNone, false },
		func() { v.Maintenance = true },
		func() { v.Tried = true },
		func() { v.Settings.HasServices = true },
		func() { v.Services.State = Stopped },
		func() { v.Self.Disk = state.UpToDate },
		func() { v.Self.Standby = false },
		func() { v.Mirror.Forwards = false },
		func() { v.Trouble.Count = 0 },
		func() { v.Wish.Kind = NoWish },
	})
}

// but sets everything save one thing.
func but(except int, all []func()) {
	for i, set := range all {
		if i != except {
			set()
		}
	}
}
