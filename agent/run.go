package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"hapair/agent/api"
	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/agent/paths"
	"hapair/agent/peering"
	"hapair/agent/recorder"
	"hapair/agent/systemd"
	"hapair/failover"
	"hapair/failover/lease"
	"hapair/failover/ledger"
	"hapair/failover/vip/deadman"
	"hapair/fencing"
	"hapair/heartbeat"
)

// stopPatience bounds an orderly stop, each stage of it.
const stopPatience = 60 * time.Second

// agent is the running daemon. Fields are set once, in the order of start.
type agent struct {
	cfg   *config.Config
	self  string
	log   *zap.Logger
	clock lease.Clock
	began time.Time
	boss  *systemd.Manager // who started this process

	hub      *api.Hub
	record   *recorder.Recorder
	net      *peering.Net
	ledger   *ledger.Ledger
	heart    *heartbeat.Heartbeat
	words    *linkWords           // what the heartbeat is told of the mirror links; nil on a witness
	fence    *fencing.Room        // nil unless arbitration is by fencing
	fences   *failover.Fences     // likewise
	paths    *paths.Watch         // to the other data node; nil on a witness
	dog      *dog                 // nil without a watchdog
	deadman  *deadman.Guard       // nil where there is no service address
	res      map[string]*resource // by name; none on a witness
	order    []*resource
	opened   atomic.Bool // res and order are complete
	failed   bool        // the start
	broken   []broken    // resources without their disks
	server   *api.Server
	drilling atomic.Bool // this node leads a drill
	where    atomic.Pointer[whereabouts]
	applied  atomic.Pointer[config.Config] // as last applied: other addresses, another witness
	applying sync.Mutex                    // one change of them at a time

	stops  []stage // what to undo, last first
	leaves []leave // of what the stop empties this node, in any order

	problems problems

	pathNews chan struct{} // capacity 1: a path is another than it was

	openWithin time.Duration // that the disks of a resource are waited for; 0: as the mirror has it
}

// stage is one numbered step of the start, with its undoing.
type stage struct {
	name   string
	within func() time.Duration
	stop   func(ctx context.Context) error
}

// run starts everything, waits for ctx or for the end of the machine, and stops
// everything in reverse.
func run(ctx context.Context, cfg *config.Config, self string, log *zap.Logger) error {
	a := &agent{cfg: cfg, self: self, log: log, clock: lease.Boottime(), began: time.Now(), boss: systemd.New(log),
		hub: api.NewHub(self, time.Now), res: map[string]*resource{}}
	nodes, _ := addresses(cfg)
	a.where.Store(&nodes)
	a.applied.Store(cfg)
	if err := a.start(ctx); err != nil {
		a.failed = true
		log.Error("the start failed", zap.Error(err)) // the stop may last
		return errors.Join(err, a.stop())
	}
	a.log.Info("running", zap.String("version", version), zap.String("cluster", cfg.Cluster))
	a.event(apiv1.EventAgent, "", "the agent runs, version "+version)
	a.boss.Ready(a.summary())
	a.dog.runs(a.loops())
	return a.serve(ctx)
}

func (a *agent) start(ctx context.Context) error {
	steps := []struct {
		name string
		fn   func(context.Context) error
	}{
		{"1 directories", a.startDirs},
		{"2 flight recorder", a.startRecorder},
		{"3 watchdog", a.startWatchdog},
		{"4 peering", a.startPeering},
		{"5 ledger", a.startLedger},
		{"6 listen", a.startListening},
		{"7 paths", a.startPaths},
		{"8 fencing", a.startFencing},
		{"9 heartbeat", a.startHeartbeat},
		{"10 resources", a.startResources},
		{"11 control socket", a.startAPI},
	}
	for _, s := range steps {
		a.stage("starting: "+s.name, stopPatience)
		if err := s.fn(ctx); err != nil {
			return fmt.Errorf("start %s: %w", s.name, err)
		}
	}
	return nil
}

// background runs a part of the agent beside the others; end has it end, and waits for
// that.
func background(run func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// onStop says how to undo what was just started, within stopPatience.
func (a *agent) onStop(name string, fn func(context.Context) error) {
	a.onStopWithin(name, func() time.Duration { return stopPatience }, fn)
}

// onStopWithin is for what may take longer, as is known when it begins.
func (a *agent) onStopWithin(name string, within func() time.Duration, fn func(context.Context) error) {
	a.stops = append(a.stops, stage{name, within, fn})
}

func (a *agent) stop() error {
	var errs []error
	for i := len(a.stops) - 1; i >= 0; i-- {
		s := a.stops[i]
		within := s.within()
		a.stage("stopping: "+s.name, within)
		ctx, cancel := context.WithTimeout(context.Background(), within)
		if err := s.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
		cancel()
	}
	return errors.Join(errs...)
}

func (a *agent) event(kind, resource, text string) { a.publish(kind, resource, text, nil) }

// publish tells the subscribers, and keeps the newest problem for the status.
func (a *agent) publish(kind, resource, text string, fields map[string]string) {
	e := a.hub.Publish(kind, resource, text, fields)
	if a.record != nil {
		a.record.Add(e.Time, kind, resource, text, fields)
	}
	if kind == apiv1.EventProblem {
		a.problems.put(&apiv1.ProblemAt{Time: e.Time, Resource: resource, Problem: apiv1.Problem{Code: apiv1.CodeInternal, Text: text}})
	}
}

func (a *agent) witness() bool { return a.cfg.IsWitness(a.self) }

func (a *agent) startDirs(context.Context) error {
	for _, dir := range []string{a.cfg.StateDir, filepath.Join(a.cfg.StateDir, "ledger")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	// Not root's alone: whoever may use the control socket passes through it.
	return os.MkdirAll(a.cfg.RunDir, 0o755)
}

func (a *agent) startAPI(context.Context) error {
	l, found, err := api.Listen(a.cfg.Socket(), a.cfg.API.ReadGroup)
	if err != nil {
		return err
	}
	if !found && a.cfg.API.ReadGroup != "" {
		a.log.Info("the group of the control socket does not exist; only root may use it", zap.String("group", a.cfg.API.ReadGroup))
	}
	opt := api.Options{Backend: &backend{a}, Log: a.log, Version: apiv1.Version{Version: version, Node: a.self}}
	opt.AdminGID, opt.HasAdminGID = api.GroupID(a.cfg.API.AdminGroup)
	if a.server, err = api.New(opt); err != nil {
		return errors.Join(err, l.Close())
	}
	done := make(chan error, 1)
	go func() { done <- a.server.Serve(l) }()
	a.onStop("control socket", func(ctx context.Context) error {
		return errors.Join(a.server.Shutdown(ctx), <-done)
	})
	a.startMetrics()
	return nil
}

// startMetrics serves /metrics over TCP as well, when that is wished for. That it
// cannot be is told, and does not keep the node from its work.
func (a *agent) startMetrics() {
	if a.cfg.API.MetricsAddress == "" {
		return
	}
	end := background(func(ctx context.Context) {
		a.server.ServeMetrics(ctx, api.MetricsTCP{Address: a.cfg.API.MetricsAddress, Failed: func(err error) {
			a.log.Warn("no metrics over TCP: that is tried again", zap.Error(err))
			a.event(apiv1.EventProblem, "", "metrics_address: "+err.Error()+"; it is tried again")
		}})
	})
	a.onStop("metrics", func(context.Context) error { end(); return nil })
}
