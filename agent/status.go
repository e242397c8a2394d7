package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"hapair/agent/apiv1"
	"hapair/failover"
	"hapair/failover/ledger"
	"hapair/kernel/writeout"
	"hapair/mirror"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// Status is everything this node knows, at one instant.
func (b *backend) Status(context.Context) (apiv1.Status, error) {
	a := b.a
	ls := a.ledger.Status()
	s := apiv1.Status{Node: a.self, Cluster: a.cfg.Cluster, Version: version, Time: time.Now().UTC(), UptimeS: int64(time.Since(a.began).Seconds()),
		Arbitration: ls.Arbitration.String(), EventSeq: a.hub.Seq(),
		Quorum: apiv1.Quorum{Voters: ls.Of, Reachable: ls.Reachable, Leader: ls.Leader, Incarnation: ls.Incarnation, HasQuorum: ls.Quorum, Unmet: ls.Unmet,
			Refusing: ls.Refusing, Alone: ls.Alone, Joining: ls.Joining, Replaced: errText(ls.Replaced), Arranging: ls.Arranging}}
	s.Maintenance, s.Standby = marked(&ls)
	for _, r := range a.order {
		s.Resources = append(s.Resources, r.status(&ls))
	}
	if a.witness() {
		s.Resources = a.witnessed(&ls)
	}
	for _, x := range a.broken {
		s.Resources = append(s.Resources, a.brokenStatus(x))
	}
	s.Members, s.WriteOut = machines(a.members(), &ls), writeOut()
	s.Fencing, s.Fences = a.fencingStatus()
	s.Watchdog = a.watchdogStatus()
	s.LastProblem = a.problems.last("", true)
	return s, nil
}

// marked reads the operator's marks for the cluster: the rest of them are of one
// resource each, and its controller heeds them.
func marked(ls *ledger.Status) (maintenance bool, standby []string) {
	_, maintenance = ls.Maintenance[failover.MarkMaintenance]
	for mark := range ls.Maintenance {
		if node, ok := strings.CutPrefix(mark, failover.MarkStandby("")); ok {
			standby = append(standby, node)
		}
	}
	slices.Sort(standby)
	return maintenance, standby
}

// lookAgain is how old an answer of the kernel may be that is much to ask for.
const lookAgain = 5 * time.Second

// writeOutSeen is what was last asked for of this process.
var writeOutSeen struct {
	sync.Mutex
	at   time.Time
	what apiv1.WriteOut
}

func writeOut() apiv1.WriteOut {
	w := &writeOutSeen
	w.Lock()
	defer w.Unlock()
	if w.at.IsZero() || time.Since(w.at) > lookAgain {
		w.at, w.what = time.Now(), lookAtMemory()
	}
	return w.what
}

func lookAtMemory() apiv1.WriteOut {
	s, err := writeout.Look()
	if err != nil {
		return apiv1.WriteOut{Because: err.Error()}
	}
	return apiv1.WriteOut{Ready: s.Ready(), Threads: s.Threads, Flushers: s.Flushers, LockedBytes: s.LockedBytes, OOMScoreAdj: s.OOMScoreAdj}
}

// brokenStatus shows a resource that is not attached here.
func (a *agent) brokenStatus(x broken) apiv1.Resource {
	rec, _ := a.ledger.Record(x.name)
	return apiv1.Resource{Name: x.name, Token: uint64(rec.Token), Primary: rec.Primary, InSync: rec.InSync, Role: state.RoleUnknown.String(),
		DiskState: state.Diskless.String(), Arbitration: a.ledger.Arbitration().String(), Because: "not attached: " + x.err.Error(),
		LastProblem: a.problems.last(x.name, false)}
}

// witnessed is what a witness knows of the resources it has no copy of.
func (a *agent) witnessed(ls *ledger.Status) (out []apiv1.Resource) {
	for i := range a.cfg.Resources {
		rc := &a.cfg.Resources[i]
		rec, _ := a.ledger.Record(rc.Name)
		out = append(out, apiv1.Resource{Name: rc.Name, Token: uint64(rec.Token), Primary: rec.Primary, InSync: rec.InSync, Role: state.RoleUnknown.String(),
			DiskState: state.Diskless.String(), Protocol: string(rc.Protocol), Arbitration: ls.Arbitration.String(),
			Because: testimony(rec, ls, a.ledger.PromiseLapsed(rc.Name)), LastProblem: a.problems.last(rc.Name, false)})
	}
	return out
}

// testimony is what a witness can say about a resource in a sentence. lapsed
// is about its own promise: whoever it promised the lease may serve.
func testimony(rec ledger.Record, ls *ledger.Status, lapsed bool) string {
	switch {
	case ls.Applied == 0:
		return "the ledger has not been read since this agent began"
	case !ls.Promising:
		return "this voter began lately: it promises no lease before those it may have forgotten have run out"
	case rec.Token == 0:
		return "nobody has declared which copy is good"
	case rec.Primary == "":
		return "nobody is Primary by the ledger"
	case lapsed:
		return rec.Primary + " is Primary by the ledger, but does not renew its lease here"
	}
	return rec.Primary + " is Primary and renews its lease here"
}

func (r *resource) status(ls *ledger.Status) apiv1.Resource {
	c := r.copies()
	v, rec := c.mirror, c.record
	out := apiv1.Resource{Name: r.name, Token: uint64(rec.Token), Primary: rec.Primary, InSync: rec.InSync, Role: v.Role.String(),
		DiskState: worst(v.Volumes, func(x engine.VolumeView) state.Disk { return x.Disk }).String(), Suspect: v.Suspect,
		Arbitration: ls.Arbitration.String(), SinceS: r.roleSince(v.Role), Because: r.control.Status().Decision.Because}
	if l := r.a.ledger.Lease(r.name); l.Valid(r.a.clock()) {
		out.LeaseMS = (l.Until - r.a.clock()).Milliseconds()
	}
	out.Settings = r.set.Load().status()
	showProtocol(&out, &c)
	out.SplitBrain, out.Sides, out.Kept = c.split(), c.sides(), r.keptStatus()
	out.FrozenReasons = frozen(&v, out.LeaseMS > 0, ls)
	out.Frozen = len(out.FrozenReasons) > 0
	out.LastProblem = r.a.problems.last(r.name, false)
	out.Peers = []apiv1.Peer{r.peerStatus(&v)}
	if v.TakenBackAt != 0 {
		out.AttachInS = max(int64((v.TakenBackAt - v.Now).Seconds()), 1)
	}
	out.Verify = r.verifyStatus(&v)
	held := r.heldOpen(v.Role)
	for i := range v.Volumes {
		vol := r.volumeStatus(&v, i)
		if i < len(held) {
			vol.OpenBy = held[i]
		}
		out.Volumes = append(out.Volumes, vol)
	}
	if r.group != nil {
		out.Services = r.serviceStatus()
	}
	return out
}

func (r *resource) serviceStatus() (out []apiv1.Service) {
	remembered, now := r.control.Failures(), r.a.clock()
	for i, s := range r.group.Status() {
		policy := r.conf.Failures
		if own := r.conf.Services[i].Failures; own != nil {
			policy = *own
		}
		x := apiv1.Service{Name: s.Name, Kind: s.Kind, State: string(s.State), Since: s.Since, Error: errText(s.Error), FailureLimit: policy.Threshold}
		if f := remembered[s.Name]; f.Remembered(now) {
			x.Failures, x.LastFailure, x.ForgottenInS = f.Count, f.What, max(int64((f.Until-now).Seconds()), 1)
		}
		out = append(out, x)
	}
	return out
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// frozen says why I/O of a Primary waits.
func frozen(v *mirror.View, leased bool, ls *ledger.Status) (why []string) {
	if v.Role != state.Primary {
		return nil
	}
	if !leased {
		why = append(why, fmt.Sprintf("this node holds no lease: %d of %d voters are reachable", ls.Reachable, ls.Of))
	}
	if v.Deposed {
		why = append(why, "another node has a higher token")
	}
	if v.Excluding {
		why = append(why, "the ledger has not yet recorded that the peer lacks writes")
	}
	if v.Greeting && v.Waiting > 0 {
		why = append(why, "a handshake with the peer is under way")
	}
	if v.Waiting > 0 && (v.Record.Tenure != v.Tenure || v.Record.Primary == "") {
		why = append(why, fmt.Sprintf("the ledger's record (Primary %q, token %d) is not this node's (token %d)", v.Record.Primary, v.Record.Tenure, v.Tenure))
	}
	return why
}

// frozenNow reports whether I/O waits here for a lease or the ledger. It does not block.
func (r *resource) frozenNow() bool {
	if r.mirror == nil {
		return false // not attached: there is nobody whose I/O could wait
	}
	v, ls := r.mirror.View(), r.a.ledger.Status()
	return len(frozen(&v, r.a.ledger.Lease(r.name).Valid(r.a.clock()), &ls)) > 0
}

func (r *resource) peerStatus(v *mirror.View) apiv1.Peer {
	p := apiv1.Peer{Node: r.peer, Role: v.PeerRole.String(), DiskState: state.DUnknown.String(), Connection: v.State.String(), Replication: v.Replication.String()}
	if v.Connected {
		p.DiskState = worst(v.Volumes, func(x engine.VolumeView) state.Disk { return x.PeerDisk }).String()
		p.Path, p.AlsoPaths = v.Path, v.Link.Also
	} else {
		p.Reason, p.DownS = errText(v.Reason), r.downFor()
	}
	for _, x := range v.Volumes {
		p.DirtyBytes += x.DirtyBytes
	}
	p.BehindBytes = v.BehindBytes
	if p.Resync = resync(v); p.Resync != nil && p.Resync.Paused {
		p.Resync.PausedBy = map[string]string{apiv1.ToPeer: r.a.self, apiv1.FromPeer: r.peer}[p.Resync.Direction]
	}
	return p
}

// linked notes that a session with the peer began or ended.
func (r *resource) linked(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case up:
		r.mu.down = time.Time{}
	case r.mu.down.IsZero():
		r.mu.down = time.Now()
	}
}

// downFor is for how many seconds there has been no session.
func (r *resource) downFor() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.down.IsZero() {
		return 0
	}
	return int64(time.Since(r.mu.down).Seconds())
}

// heldOpen names who holds each volume open; only a Primary offers them.
func (r *resource) heldOpen(role state.Role) [][]string {
	if role != state.Primary {
		return nil
	}
	return r.open.all()
}

func (r *resource) volumeStatus(v *mirror.View, i int) apiv1.Volume {
	x := &v.Volumes[i]
	out := apiv1.Volume{Number: int(x.Number), SizeBytes: x.SizeBytes, Disk: r.conf.Volumes[i].Disk.For(r.a.self), Frontend: v.Kinds[i],
		DiskState: x.Disk.String(), DirtyBytes: x.DirtyBytes, Counters: r.rates.counters(i, v),
		Proven: r.verify.provenStatus(x.Number, x.SizeBytes)}
	if v.Devices[i] != "" {
		out.Device = v.Devices[i]
		if v.Kinds[i] == "fuse" {
			out.Device = r.a.cfg.DevicePath(r.name, int(x.Number))
		}
	}
	return out
}

// problems keeps the newest problem of each resource; "" is the node itself.
type problems struct {
	mu sync.Mutex
	by map[string]*apiv1.ProblemAt
}

func (p *problems) put(x *apiv1.ProblemAt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = map[string]*apiv1.ProblemAt{}
	}
	p.by[x.Resource] = x
}

// settle forgets the problem of a resource: it is over.
func (p *problems) settle(resource string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.by, resource)
}

// last returns the newest problem of a resource, or of all; nil without one.
func (p *problems) last(resource string, all bool) *apiv1.ProblemAt {
	p.mu.Lock()
	defer p.mu.Unlock()
	newest := p.by[resource]
	for _, x := range p.by {
		if all && (newest == nil || x.Time.After(newest.Time)) {
			newest = x
		}
	}
	return newest
}

// roles remembers since when this node has its role.
type roles struct {
	mu    sync.Mutex
	now   state.Role
	since time.Time
}

// roleSince notes the role and returns for how many seconds it has been so.
func (r *resource) roleSince(now state.Role) int64 {
	r.roles.mu.Lock()
	defer r.roles.mu.Unlock()
	if r.roles.now != now {
		r.roles.now, r.roles.since = now, time.Now()
	}
	return int64(time.Since(r.roles.since).Seconds())
}

// rates turns totals into rates, between two looks at least a second apart.
type rates struct {
	mu sync.Mutex
	at map[int]sample
}

type sample struct {
	when  time.Duration
	stats engine.Stats
	out   apiv1.Counters
}

func (r *rates) counters(i int, v *mirror.View) apiv1.Counters {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil {
		r.at = map[int]sample{}
	}
	now, last := v.Volumes[i].Stats, r.at[i]
	out := last.out
	if dt := (v.Now - last.when).Seconds(); dt >= 1 {
		h := now.WriteLatency.Sub(&last.stats.WriteLatency)
		out = apiv1.Counters{
			ReadsPerS: float64(now.Reads-last.stats.Reads) / dt, WritesPerS: float64(now.Writes-last.stats.Writes) / dt,
			ReadBytesPerS:  float64(now.ReadBytes-last.stats.ReadBytes) / dt,
			WriteBytesPerS: float64(now.WriteBytes-last.stats.WriteBytes) / dt,
			WriteP50US:     float64(h.Quantile(0.5).Microseconds()), WriteP99US: float64(h.Quantile(0.99).Microseconds()),
		}
		r.at[i] = sample{v.Now, now, out}
	}
	out.ReadsTotal, out.WritesTotal, out.FlushesTotal = now.Reads, now.Writes, now.Flushes
	out.ReadBytesTotal, out.WriteBytesTotal, out.ErrorsTotal, out.InFlight = now.ReadBytes, now.WriteBytes, now.Errors, v.InFlight+v.Waiting
	return out
}

// resync is the progress of a resync, nil when none runs.
func resync(v *mirror.View) *apiv1.Resync {
	out := &apiv1.Resync{Direction: apiv1.ToPeer, DoneBytes: v.ResyncDone, TotalBytes: v.ResyncTotal, EqualBytes: v.ResyncEqual, ETAS: -1}
	switch v.Replication {
	case state.SyncSource:
	case state.PausedSyncS:
		out.Paused = true
	case state.SyncTarget, state.PausedSyncT:
		out.Direction, out.Paused = apiv1.FromPeer, v.Replication == state.PausedSyncT
	case state.Forwarding:
		if !v.Filling {
			return nil
		}
		out.Direction = apiv1.FromPeer
	default:
		return nil
	}
	out.RateBytesPerS = v.ResyncRate
	if out.RateBytesPerS > 0 {
		out.ETAS = (out.TotalBytes - out.DoneBytes) / out.RateBytesPerS
	}
	return out
}

// kindOf tells data nodes from a witness.
func (a *agent) kindOf(node string) string {
	if a.cfg.Node(node) == nil {
		return apiv1.KindWitness
	}
	return apiv1.KindData
}
