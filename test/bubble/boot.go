package bubble

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"hapair/failover"
	"hapair/failover/lease"
	"hapair/failover/ledger"
	"hapair/failover/plan"
	"hapair/heartbeat"
	"hapair/heartbeat/detect"
	"hapair/heartbeat/heartbeattest"
	"hapair/mirror"
	"hapair/mirror/block"
	"hapair/mirror/front"
	"hapair/mirror/link"
	"hapair/mirror/meta"
)

const (
	cluster  = "shop"
	resource = "data"
	probe    = 200 * time.Millisecond
	patience = time.Minute // of an orderly stop, each stage of it
)

// boot is one run of an agent on a box. Fields are set once, in the order of
// start.
type boot struct {
	w    *World
	box  *box
	node string
	peer string // the other data node, "" on the witness
	log  *zap.Logger
	port *port

	ledger  *ledger.Ledger
	heart   *heartbeat.Heartbeat
	disks   []*handle
	door    *door
	mirror  *mirror.Resource
	control *failover.Controller
	fences  *failover.Fences // nil but in arbitration by fencing
	ready   atomic.Bool      // control is set
	leased  atomic.Bool
	cancel  context.CancelFunc
	ran     chan error // the controller's Run has returned

	token  lease.Token   // the highest seen, by watch
	gone   chan struct{} // everything has ended
	frozen bool          // guarded by World.mu
}

func (b *boot) wake(cause string) {
	if b.ready.Load() {
		b.control.Wake(cause)
	}
}

// start brings an agent up, as package agent does.
func (b *boot) start() error {
	b.port = b.w.fabric.port(b.node)
	steps := []func() error{b.startLedger, b.startHeartbeat}
	if b.peer != "" {
		steps = append(steps, b.openMirror, b.newController, b.startResource)
	}
	for _, fn := range steps {
		if err := fn(); err != nil {
			return err
		}
	}
	return nil
}

func (b *boot) startLedger() (err error) {
	cfg := ledger.Config{Self: b.node, Dir: filepath.Join(b.w.dir, b.node, "ledger"), Clock: b.box.clock.now, Logger: b.log, Streams: b.port,
		Arbitration: ledger.ArbitrationWitness, Timing: b.w.setup.timing, FenceTakes: gunTakes, Events: func(e ledger.Event) {
			b.log.Info("ledger: "+string(e.Kind), zap.String("who", e.Node), zap.String("because", e.Because), zap.Error(e.Err))
			b.wake("ledger " + string(e.Kind))
		}}
	switch {
	case b.w.setup.fencing:
		cfg.Arbitration = ledger.ArbitrationFencing
	case b.w.setup.manual:
		cfg.Arbitration = ledger.ArbitrationManual
	}
	for _, n := range b.w.setup.nodes() {
		cfg.Voters = append(cfg.Voters, ledger.Voter{Node: n, Witness: n == witness})
	}
	b.ledger, err = ledger.Open(cfg)
	return err
}

func (b *boot) startHeartbeat() (err error) {
	nodes := map[string]map[string]netip.Addr{}
	for _, n := range b.w.setup.nodes() {
		nodes[n] = map[string]netip.Addr{path: address(n)}
	}
	down := func(node, _ string, _ []detect.Reason) { b.port.closeTo(node) }
	cfg := heartbeat.Config{Cluster: cluster, Self: b.node, Incarnation: b.ledger.Incarnation(), Nodes: nodes, Port: gossipPort, Key: make([]byte, 32),
		Probe: probe, Clock: b.box.clock.now, Logger: b.log, OnPathDown: down}
	if b.heart, err = heartbeat.New(heartbeattest.On(cfg, b.port.membership)); err != nil {
		return err
	}
	b.heart.Subscribe(func(heartbeat.Snapshot) { b.wake("heartbeat") })
	return b.heart.Start()
}

// openMirror opens the mirror on the drives of the box. The files that it is
// given by their paths only lend their names.
func (b *boot) openMirror() (err error) {
	b.door = newDoor(b.w, b.node)
	wrap := func(p string, d block.Disk) block.Disk {
		if err := d.Close(); err != nil {
			b.w.failf("%s: close the file of %s: %v", b.node, p, err)
		}
		h := b.box.drive(p).open(b.w.random())
		b.disks = append(b.disks, h)
		return h
	}
	cfg := mirror.Config{Cluster: cluster, Resource: resource, Self: b.node, Peer: b.peer, Ledger: mirrorLedger{b}, Dialer: dialer{b}, Clock: b.box.clock.now,
		Observer: observer{b}, Logger: b.log, Silence: b.w.setup.silence,
		Volumes: []mirror.VolumeConfig{{Disk: b.box.file(diskFile), Metadata: b.box.file(metaFile), Frontend: front.Frontend(b.door), Wrap: wrap}}}
	if rec, ok := b.ledger.Record(resource); ok {
		cfg.Record = toWire(rec)
	}
	b.mirror, err = mirror.Open(context.Background(), cfg)
	return err
}

func (b *boot) newController() (err error) {
	s := plan.Defaults()
	s.Run, s.Preferred = true, b.w.setup.preferred
	h := ledgerHands{b.ledger}
	needs := failover.Needs{Ledger: h, Leases: h, Group: h, Marks: h, Mirror: mirrorHands{b}, Heartbeat: heartHands{b}, Peers: hints{b}}
	if b.w.setup.manual {
		s.Arbitration = plan.Manual
	}
	if b.w.setup.fencing {
		s.Arbitration, s.FenceDelay = plan.Fencing, b.w.setup.delay
		b.fences = failover.NewFences(failover.FencesConfig{Self: b.node, Peer: b.peer, Ballot: ballot{b.ledger}, Devices: guns{b}, Clock: b.box.clock.now, Log: b.log, Wake: b.wake})
		needs.Fencer = b.fences
	}
	b.control, err = failover.New(failover.Config{Resource: resource, Self: b.node, Peer: b.peer, Settings: s, Clock: b.box.clock.now, Log: b.log, Needs: needs})
	b.ready.Store(err == nil)
	return err
}

func (b *boot) startResource() error {
	b.ledger.OnRecord(func(name string, r ledger.Record) {
		if name == resource {
			b.w.learn(r)
			b.mirror.SetRecord(toWire(r))
			if r.Token == 0 {
				b.control.Discarded()
			}
			b.wake("record")
		}
	})
	b.ledger.OnLease(func(l lease.Lease) {
		b.mirror.SetLease(uint64(l.Tenure), l.Until)
		held := l.Until != 0
		switch was := b.leased.Swap(held); {
		case !held:
			b.wake("lease lost")
		case !was:
			b.wake("lease held")
		}
	})
	b.port.Handle(link.DataPurpose(resource), func(_ string, c net.Conn) { b.mirror.Accept(c, link.DataPurpose(resource)) })
	b.port.Handle(link.ControlPurpose(resource), func(_ string, c net.Conn) { b.mirror.Accept(c, link.ControlPurpose(resource)) })
	b.port.Handle(hint, b.acceptHint)
	if rec, ok := b.ledger.Record(resource); ok {
		b.mirror.SetRecord(toWire(rec))
	}
	b.mirror.Start()
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.ran = cancel, make(chan error, 1)
	go func() { b.ran <- b.control.Run(ctx) }()
	return nil
}

// stop ends the agent in order.
func (b *boot) stop() error {
	defer close(b.gone)
	var errs []error
	stage := func(fn func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		errs = append(errs, fn(ctx))
	}
	if b.control != nil {
		stage(func(ctx context.Context) error {
			err := b.control.Leave(ctx)
			b.cancel()
			return errors.Join(err, <-b.ran)
		})
		stage(b.closeMirror)
	}
	b.heart.Stop()
	if b.fences != nil {
		b.fences.Close()
	}
	if len(b.w.setup.nodes()) == 2 {
		stage(b.ledger.Leave)
	}
	stage(b.ledger.Shutdown)
	b.port.kill(false)
	return errors.Join(errs...)
}

func (b *boot) closeMirror(ctx context.Context) error {
	var err error
	if b.mirror.View().Tenure != 0 {
		err = b.mirror.Abort(ctx, errors.New("the agent stops while Primary"))
	}
	return errors.Join(err, b.mirror.Close(ctx))
}

// kill ends the agent like SIGKILL; with power, like a power cut. What still
// runs of it reaches nobody, and is cleared away in its own time.
func (b *boot) kill(power bool) {
	b.dies(power)
	go func() {
		defer close(b.gone)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = b.ledger.Close() // a dead process's errors are nobody's
		if b.fences != nil {
			b.fences.Close()
		}
		if b.control != nil {
			b.cancel()
			<-b.ran                //nolint:errcheck // likewise
			_ = b.closeMirror(ctx) // likewise
		}
		b.heart.Stop()
	}()
}

// dies has whatever runs of the agent reach nobody and nothing any more.
func (b *boot) dies(power bool) {
	if power {
		b.w.fabric.crash(b.node)
	}
	if b.door != nil {
		b.door.kill()
	}
	for _, h := range b.disks {
		h.kill()
	}
	if power {
		b.box.powerCut()
	}
	b.port.kill(power)
}

// format writes new metadata.
func format(x *box, peer string) error {
	h := x.drive(x.file(metaFile)).open(1)
	_, err := meta.Create(h, meta.CreateParams{Placement: meta.External, DataBytes: volumeBytes, Cluster: cluster, Resource: resource,
		Node: x.name, Peer: peer, Flags: meta.AssumeClean})
	return errors.Join(err, h.Close())
}
