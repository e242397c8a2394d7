package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/agent/paths"
	"hapair/agent/peering"
	"hapair/failover/ledger"
)

// witnessPath names the one path to a witness.
const witnessPath = "lan"

// whereabouts are every node's address per path.
type whereabouts = map[string]map[string]netip.Addr

// addresses lists every node's address per path, and the paths in their order.
// The witness has one address; it is dialed, and dials, over it.
func addresses(cfg *config.Config) (nodes whereabouts, order []string) {
	nodes = whereabouts{}
	for _, n := range cfg.Nodes {
		nodes[n.Name] = map[string]netip.Addr{}
		for _, ad := range n.Addresses {
			nodes[n.Name][ad.Path] = ad.IP
		}
	}
	for _, ad := range cfg.Nodes[0].Addresses {
		order = append(order, ad.Path)
	}
	if w := cfg.Witness; w != nil {
		nodes[w.Name] = map[string]netip.Addr{witnessPathOf(cfg): w.Address}
	}
	return nodes, order
}

// onPort are the same addresses as a dialer wants them.
func onPort(nodes whereabouts, port uint16) map[string]map[string]string {
	out := map[string]map[string]string{}
	for name, paths := range nodes {
		out[name] = map[string]string{}
		for path, ip := range paths {
			out[name][path] = netip.AddrPortFrom(ip, port).String()
		}
	}
	return out
}

// witnessPathOf is the path a witness shares with the data nodes: the last
// configured one, as the first is the crossover.
func witnessPathOf(cfg *config.Config) string {
	if ads := cfg.Nodes[0].Addresses; len(ads) > 0 {
		return ads[len(ads)-1].Path
	}
	return witnessPath
}

func (a *agent) startPeering(context.Context) error {
	nodes, order := addresses(a.cfg)
	pc := peering.Config{Cluster: a.cfg.Cluster, Node: a.self, Nodes: onPort(nodes, a.cfg.Port), PathOrder: order, Logger: a.log,
		Incarnation: a.incarnation, Apart: a.apart, Machine: a.machine, Stranger: a.stranger}
	var err error
	switch a.cfg.Security.Mode {
	case config.SecurityPSK:
		pc.Mode = peering.PSK
		pc.Key, err = peering.LoadKey(a.cfg.Security.PSKFile)
	default:
		pc.Mode = peering.TLS
		pc.Material, err = peering.LoadMaterial(a.cfg.Security.CAFile, a.cfg.Security.CertFile, a.cfg.Security.KeyFile)
	}
	if err != nil {
		return err
	}
	if a.net, err = peering.New(pc); err != nil {
		return err
	}
	a.onStop("peering", func(context.Context) error { return a.net.Close() })
	return nil
}

// startListening comes after the ledger has said which incarnation this is.
func (a *agent) startListening(context.Context) error {
	a.net.Handle(paths.Purpose, a.acceptPath) // first: whoever is refused takes this node for one of an earlier release
	a.net.Handle(recordPurpose, a.acceptRecord)
	a.record.Start()
	return a.net.Listen()
}

func (a *agent) incarnation() uint64 {
	if a.ledger == nil {
		return 0
	}
	return a.ledger.Incarnation()
}

// apart tells whether the ledgers of this node and another one are a split brain.
func (a *agent) apart(node string) bool { return a.ledger != nil && a.ledger.SplitFrom() == node }

// machine is this machine's identity, "" before the ledger has said it.
func (a *agent) machine() string {
	if a.ledger == nil {
		return ""
	}
	return a.ledger.Machine()
}

// stranger says why a machine is not the one that has a node's name.
func (a *agent) stranger(node, machine string) error {
	if a.ledger == nil {
		return nil
	}
	return a.ledger.Stranger(node, machine)
}

// streams is what the ledger needs of peering.
type streams struct{ a *agent }

func (s streams) Dial(ctx context.Context, node, purpose string) (net.Conn, error) {
	c, err := s.a.net.Dial(ctx, node, "", purpose)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (s streams) Handle(prefix string, fn func(node string, c net.Conn)) {
	s.a.net.Handle(prefix, func(c *peering.Conn) { fn(c.Node, c) })
}

func (a *agent) startLedger(context.Context) error {
	a.warnOfHost()
	lc := ledger.Config{Self: a.self, Dir: filepath.Join(a.cfg.StateDir, "ledger"), Clock: a.clock, Logger: a.log, Streams: streams{a},
		Timing: ledger.Timing{Lease: a.cfg.Timing.Lease, Renew: a.cfg.Timing.Renew, Margin: a.cfg.Timing.Grace - a.cfg.Timing.Lease, Heartbeat: a.cfg.Timing.Heartbeat},
		Events: a.ledgerEvent, Stamp: a.record.Stamp, Heard: a.record.Heard}
	for _, n := range a.cfg.Nodes {
		lc.Voters = append(lc.Voters, ledger.Voter{Node: n.Name})
	}
	switch a.cfg.Arbitration {
	case config.ArbitrateWitness:
		lc.Arbitration = ledger.ArbitrationWitness
		lc.Voters = append(lc.Voters, ledger.Voter{Node: a.cfg.Witness.Name, Witness: true})
	case config.ArbitrateManual:
		lc.Arbitration = ledger.ArbitrationManual
	case config.ArbitrateFencing:
		lc.Arbitration, lc.FenceTakes = ledger.ArbitrationFencing, a.cfg.FenceTakes(a.cfg.Peer(a.self).Name)+fenceSlack
	}
	lc.Life = a.dog.word()
	l, err := ledger.Open(lc)
	if err != nil {
		return err
	}
	a.ledger = l
	if a.dog != nil {
		a.dog.ledger.Store(l)
	}
	a.onStop("ledger", a.stopLedger)
	return nil
}

// stopLedger leaves the voters first where the one that stays must be able to
// decide alone.
func (a *agent) stopLedger(ctx context.Context) error {
	var err error
	if a.ledger.Arbitration() != ledger.ArbitrationWitness {
		err = a.ledger.Leave(ctx)
	}
	return errors.Join(err, a.ledger.Shutdown(ctx))
}

func (a *agent) ledgerEvent(e ledger.Event) {
	text := fmt.Sprintf("ledger: %s %s (incarnation %d)", e.Kind, e.Node, e.Incarnation)
	if e.Because != "" {
		text += ": " + e.Because
	}
	kind := apiv1.EventQuorum
	if e.Err != nil {
		text, kind = text+": "+e.Err.Error(), apiv1.EventProblem
	}
	switch e.Kind {
	case ledger.EventReplaced:
		a.net.CloseStrangers()
	case ledger.EventVoters:
		a.relocate()
	default:
	}
	a.log.Info(text, zap.Error(e.Err))
	a.event(kind, "", text)
	a.wakeAll("ledger " + string(e.Kind))
}
