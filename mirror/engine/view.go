package engine

import (
	"cmp"
	"slices"
	"time"

	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// View is a snapshot for status, plan and tests.
type View struct {
	Role      state.Role
	Suspect   bool
	Tenure    uint64 // 0 unless Primary
	Seen      uint64
	Record    wire.Record
	LeaseTo   time.Duration
	Deposed   bool
	Excluding bool // an exclusion of the peer is awaited; answers wait for it
	Forwards  bool // the own copy is given up: requests go to the peer, or wait for it
	Filling   bool // then: the own copy has a disk again, and is being filled
	Waiting   int  // requests that wait for admission or for the lease
	InFlight  int  // application requests being worked on

	Configured   state.Protocol // of this node
	PeerProtocol state.Protocol // that the peer is configured for, while connected
	Protocol     state.Protocol // that counts while connected
	BehindBytes  int64          // answered, and not known to be on the peer's disk
	BehindMax    int64          // most that it may be

	PeerProtocols bool // the peer knows others than C

	Connected   bool
	Greeting    bool
	Path        string
	Replication state.Replication
	PeerRole    state.Role
	PeerSuspect bool
	PeerLast    bool
	Volumes     []VolumeView
	ResyncDone  int64 // bytes; at the target as the source told
	ResyncTotal int64
	ResyncRate  int64 // bytes per second over the last seconds
	ResyncEqual int64 // bytes that the target had already, in this session; at the source
	LastPrimary bool
	Rival       *Rival // in a split brain; nil once the copies have agreed
	Verify      VerifyView
}

// VolumeView is one volume of a View.
type VolumeView struct {
	Number     uint16
	SizeBytes  int64
	Disk       state.Disk
	Hung       bool // it was given up because it did not answer
	PeerDisk   state.Disk
	DirtyBytes int64
	PeerDirty  int64
	Assume     bool
	PeerAssume bool
	Hot        int
	AtDisk     int    // requests that the local disk has
	Settled    uint64 // writes settled since attach
	Generation uint64
	Base       uint64 // the generation in which the peer left; 0 while in line
	Since      int64  // when that was, in seconds since 1970; 0: not known
	Elder      bool   // this node was Primary then, and before
	Stats      Stats
}

// busy is how many requests the disks of the volume have, for its data and its
// metadata.
func (v *volume) busy() int {
	n := v.atDisk
	for _, writing := range []bool{v.super.inFlight, v.page.inFlight, v.activity.inFlight} {
		if writing {
			n++
		}
	}
	return n
}

// Role is the role now, as in View, for those who ask often.
func (e *Engine) Role() state.Role { return e.role }

// Pen is the tenure this node answers under and until when; 0 while it does
// not.
func (e *Engine) Pen() (tenure uint64, until time.Duration) {
	if e.role != state.Primary || e.deposed {
		return 0, 0
	}
	return e.tenure, e.leaseTo
}

// PeerOps is how many requests of the peer are at the disk or wait for it.
func (e *Engine) PeerOps() int { return e.peerOps }

// Disk is the state of the disk of volume i, counted from 0.
func (e *Engine) Disk(i int) state.Disk { return e.vols[i].disk }

// Replication is what runs between the copies now.
func (e *Engine) Replication() state.Replication { return e.session.repl }

// View returns a snapshot; it allocates.
func (e *Engine) View() View {
	s := &e.session
	w := View{
		Role: e.role, Suspect: e.suspect, Tenure: e.tenure, Seen: e.highest(), Record: e.record, LeaseTo: e.leaseTo, Deposed: e.deposed,
		Excluding: e.excluding || e.missing, Forwards: e.forward.on, Filling: e.filling(), Waiting: len(e.held) + e.answers.n, InFlight: e.appOps,
		Connected: s.phase == preparing || s.phase == agreed, Greeting: s.phase == greeting, Path: s.path, Replication: e.replication(),
		ResyncDone: s.resync.done, ResyncTotal: s.resync.total, Rival: e.rival, Verify: e.verifyView(),
	}
	w.ResyncEqual = s.resync.equal
	w.Configured, w.Protocol, w.BehindBytes, w.BehindMax = e.set.Protocol, e.protocol(), e.early.bytes, e.set.CongestionFill
	w.ResyncRate = s.resync.rate.perSecond(e.now, s.resync.done)
	if s.theirs != nil && w.Connected {
		w.PeerRole, w.PeerSuspect, w.PeerLast = s.theirs.Role, s.theirs.Suspect, s.theirs.LastPrimary
		w.PeerProtocol, w.PeerProtocols = s.theirs.Protocol, s.theirs.Features&wire.FeatureProtocols != 0
	}
	for i, v := range e.vols {
		vv := VolumeView{Number: v.num, SizeBytes: v.geo.SizeBytes, Disk: v.disk, Hung: v.hung && v.disk == state.Failed, DirtyBytes: v.bits.DirtyBytes(),
			Assume: v.assume, Hot: v.al.Count(), AtDisk: v.busy(), Settled: v.settled, Generation: uint64(v.gen.Current), Base: uint64(v.gen.Bitmap), Stats: v.stats}
		x := v.sinceParted()
		vv.Since, vv.Elder = x.since, x.elder
		if s.theirs != nil && w.Connected && i < len(s.theirs.Volumes) {
			p := &s.theirs.Volumes[i]
			vv.PeerDisk, vv.PeerDirty, vv.PeerAssume = p.Disk, int64(p.DirtyBlocks)*4096, p.AssumeClean
		}
		w.LastPrimary = w.LastPrimary || v.last
		w.Volumes = append(w.Volumes, vv)
	}
	return w
}

// VerifyView is the latest verify.
type VerifyView struct {
	State       VerifyState
	Repair      bool
	Volume      int    // AllVolumes, or the number of the only one
	Waits       string // why nothing is compared now, though it is running
	Because     string // of VerifyFailed
	Done, Total int64  // bytes
	Rate        int64  // bytes per second over the last seconds
	RateMax     int64  // that was asked for; 0: none
	Position    VerifyPosition
	Differing   int64 // blocks of 4 KiB that differ, those that were repaired included
	Unreadable  int64 // blocks that could not be read here or at the peer
	Repaired    int64 // blocks
	Found       []Difference
	Truncated   bool // Found is not all of it
}

func (e *Engine) verifyView() VerifyView {
	x := &e.verify
	w := VerifyView{State: x.state, Repair: x.order.Repair, Volume: AllVolumes, Because: x.why, RateMax: x.order.Rate,
		Differing: x.found.blocks[differs], Unreadable: x.found.blocks[unreadHere] + x.found.blocks[unreadThere],
		Repaired: x.found.repaired, Truncated: x.found.dropped}
	if x.state == VerifyNone {
		return w
	}
	if x.order.Volume != AllVolumes {
		w.Volume = int(e.vols[x.order.Volume].num)
	}
	w.Done, w.Total = e.verifyDone()
	w.Position = VerifyPosition{Volume: x.volume, Offset: x.reached(e)}
	if x.state == VerifyRunning {
		w.Waits = e.verifyWaits(x.order.Repair)
		w.Rate = x.rate.perSecond(e.now, w.Done)
	}
	for _, d := range x.found.list {
		w.Found = append(w.Found, d.Difference)
	}
	slices.SortFunc(w.Found, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Volume, b.Volume), cmp.Compare(a.Offset, b.Offset))
	})
	return w
}
