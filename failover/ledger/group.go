package ledger

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"hapair/failover/ledger/logstore"
	"hapair/failover/ledger/record"
)

const (
	snapshotEvery    = 512 // log entries
	snapshotTrailing = 64
	snapshotInterval = 30 * time.Second
	commitTimeout    = 25 * time.Millisecond // how soon followers learn what is committed
	enqueueTimeout   = 200 * time.Millisecond
	fitLook          = 5 * time.Millisecond // whether an unfit node is fit
)

// group is one raft instance. Going alone and rejoining replace it.
type group struct {
	raft  *raft.Raft
	layer *streamLayer
	fsm   *fsm
	guard *guard
	obs   *raft.Observer
	obsCh chan raft.Observation
	gone  chan struct{}

	nameless bool // unfit when it began

	calls atomic.Int64  // futures of raft that are waited for
	idle  chan struct{} // holds a token when that became none

	once sync.Once
	down raft.Future
}

func (l *Ledger) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	t := l.cfg.Timing
	c.LocalID = l.raftID()
	c.LeaderLeaseTimeout = t.Heartbeat
	// One millisecond more than wanted: lowering it later makes raft look at
	// its timer at once, which is how a lone voter starts without waiting.
	c.HeartbeatTimeout, c.ElectionTimeout = t.Heartbeat+time.Millisecond, t.Election+time.Millisecond
	c.CommitTimeout = commitTimeout
	c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = snapshotEvery, snapshotTrailing, snapshotInterval
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = l.raftLog
	return c
}

// bootstrap gives an empty store the configured group. Every voter does the
// same, byte for byte, so that they are one group from the start.
func (l *Ledger) bootstrap() error {
	has, err := raft.HasExistingState(l.store, l.store, l.snaps)
	if err != nil || has {
		return err
	}
	var servers []raft.Server
	for _, v := range l.cfg.Voters {
		servers = append(servers, server(v.Node))
	}
	slices.SortFunc(servers, func(a, b raft.Server) int { return compare(a.ID, b.ID) })
	if err := raft.BootstrapCluster(l.raftConfig(), l.store, l.store, l.snaps, nil, raft.Configuration{Servers: servers}); err != nil {
		return fmt.Errorf("bootstrap ledger: %w", err)
	}
	return nil
}

func server(node string) raft.Server {
	return raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(node), Address: raft.ServerAddress(node)}
}

func compare(a, b raft.ServerID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// startGroup starts raft on what the store holds. admin is held.
func (l *Ledger) startGroup() (err error) {
	id := l.id()
	f := &fsm{state: record.NewState(id.Incarnation, id.Lineage), onState: l.onState}
	layer := newStreamLayer(l)
	trans := newTransport(l, layer)
	g := &guard{Store: l.store, l: l}
	defer func() {
		// raft panics when it cannot save its term; while it starts, that is
		// our goroutine.
		if p := recover(); p != nil {
			err = fmt.Errorf("start raft: %v", p)
			trans.Close() //nolint:errcheck // the error at hand says more
		}
	}()
	c := l.raftConfig()
	r, err := raft.NewRaft(c, f, g, g, l.snaps, trans)
	if err != nil {
		trans.Close() //nolint:errcheck // the error at hand says more
		return fmt.Errorf("start raft: %w", err)
	}
	g.armed.Store(true)
	grp := &group{raft: r, layer: layer, fsm: f, guard: g, obsCh: make(chan raft.Observation, 16), gone: make(chan struct{}), idle: make(chan struct{}, 1), nameless: c.LocalID == nameless}
	grp.obs = raft.NewObserver(grp.obsCh, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	r.RegisterObserver(grp.obs)
	l.wg.Go(func() { l.watchLeader(grp) })
	if grp.nameless {
		l.wg.Go(func() { l.awaitFit(grp) })
	}
	l.mu.Lock()
	l.grp = grp
	l.mu.Unlock()
	if lone(voterNames(r), l.cfg.Self) {
		rc := r.ReloadableConfig()
		rc.HeartbeatTimeout, rc.ElectionTimeout = l.cfg.Timing.Heartbeat, l.cfg.Timing.Election
		if err := r.ReloadConfig(rc); err != nil {
			return fmt.Errorf("start raft: %w", err)
		}
	}
	l.kick()
	return nil
}

// stopGroup ends raft and waits until nothing of it runs. admin is held.
func (l *Ledger) stopGroup() {
	l.mu.Lock()
	g := l.grp
	l.grp = nil
	l.mu.Unlock()
	if g == nil {
		return
	}
	g.answered()
	g.raft.DeregisterObserver(g.obs)
	close(g.gone)
	g.layer.Close() //nolint:errcheck // unblocks what waits for the network; cannot fail
	if err := g.shutdown().Error(); err != nil {
		l.log.Warn("raft did not stop cleanly", zap.Error(err))
	}
}

// restartGroup ends raft, does something to the store, and starts raft anew under a node
// that goes on: its state begins with the snapshot, so it has to catch up again. admin is
// held.
func (l *Ledger) restartGroup(between func() error) {
	l.voter.setCaught(false)
	l.stopGroup()
	if err := errors.Join(between(), l.startGroup()); err != nil {
		l.diskFailed(err)
	}
	l.kickCatchUp()
}

// group returns the running raft, nil between two.
func (l *Ledger) group() *group {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.grp
}

func (l *Ledger) watchLeader(g *group) {
	last := "?"
	for {
		select {
		case <-g.obsCh:
			_, id := g.raft.LeaderWithID()
			if string(id) != last {
				l.log.Info("ledger leader changed", zap.String("was", last), zap.String("now", string(id)), zap.String("because", "raft election"))
				last = string(id)
				l.event(Event{Kind: EventLeader, Node: last})
			}
			l.kickCatchUp()
		case <-g.gone:
			return
		}
	}
}

func configuration(r *raft.Raft) []raft.Server {
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil // answered from memory: it cannot fail
	}
	return f.Configuration().Servers
}

func voterNames(r *raft.Raft) []string { return votersOf(configuration(r)) }

// votersOf are the names of those that vote.
func votersOf(servers []raft.Server) (names []string) {
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			names = append(names, string(s.ID))
		}
	}
	return names
}

// lone tells whether node is the only one of voters.
func lone(voters []string, node string) bool { return len(voters) == 1 && voters[0] == node }

// voters returns whose promises count, and false while raft is being replaced, or this
// node does not know.
func (l *Ledger) voters() ([]string, bool) {
	g := l.group()
	if g == nil || g.nameless {
		return nil, false
	}
	return voterNames(g.raft), true
}

// guard stands between raft and the store. raft panics when the vote or term
// cannot be saved; here its goroutine ends instead, the node votes no more,
// and the process, which carries data, lives on.
type guard struct {
	*logstore.Store
	l     *Ledger
	armed atomic.Bool
	// cut: the end of the log was taken away, and nothing was put there yet. raft knows
	// of it only once something is.
	cut atomic.Bool
}

func (g *guard) judge(err error, fatal bool) error {
	if err == nil || !g.armed.Load() {
		return err
	}
	g.l.diskFailed(err)
	if fatal {
		runtime.Goexit()
	}
	return err
}

// passing is judge for what raft tries again: that there was no room for it is no failure.
func (g *guard) passing(err error) error {
	if errors.Is(err, logstore.ErrNoRoom) {
		return err
	}
	return g.judge(err, false)
}

// Set implements raft.StableStore.
func (g *guard) Set(key, val []byte) error { return g.passing(g.Store.Set(key, val)) }

// SetUint64 implements raft.StableStore.
func (g *guard) SetUint64(key []byte, val uint64) error {
	err := g.Store.SetUint64(key, val)
	if string(key) == keyTerm {
		return g.judge(err, true)
	}
	return g.passing(err)
}

// StoreLog implements raft.LogStore.
func (g *guard) StoreLog(e *raft.Log) error { return g.StoreLogs([]*raft.Log{e}) }

// StoreLogs implements raft.LogStore.
func (g *guard) StoreLogs(e []*raft.Log) error {
	err := g.Store.StoreLogs(e)
	if err == nil {
		g.cut.Store(false)
	}
	if g.cut.Load() {
		return g.judge(err, false)
	}
	return g.passing(err)
}

// DeleteRange implements raft.LogStore. raft empties a log without gaps after a snapshot
// from the leader, and goes on as if the entries beyond that were still there: a
// snapshot that comes twice, as over a slow network, finds some, and the next commit
// would panic. So they stay. What is taken away for another reason lies wholly before a
// snapshot, or behind it.
func (g *guard) DeleteRange(lo, hi uint64) error {
	metas, err := g.l.snaps.List()
	if err == nil && len(metas) > 0 && lo <= metas[0].Index && metas[0].Index < hi {
		hi = metas[0].Index
	}
	last, err2 := g.LastIndex()
	err = errors.Join(err, err2, g.Store.DeleteRange(lo, hi))
	if hi < last {
		return g.passing(err) // what is in a snapshot: it is tried again with the next one
	}
	if err == nil {
		g.cut.Store(true)
	}
	return g.judge(err, false)
}
