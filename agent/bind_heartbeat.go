package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"hapair/agent/apiv1"
	"hapair/failover/plan"
	"hapair/heartbeat"
	"hapair/heartbeat/detect"
	"hapair/kernel/secret"
)

func (a *agent) startHeartbeat(context.Context) error {
	key, err := loadGossipKey(a.cfg.Security.GossipKeyFile)
	if err != nil {
		return err
	}
	nodes, order := addresses(a.cfg)
	h, err := heartbeat.New(heartbeat.Config{Cluster: a.cfg.Cluster, Self: a.self, Incarnation: a.ledger.Incarnation(), Version: version, Nodes: nodes, Order: order,
		Port: int(a.cfg.HeartbeatPort), Key: key, Probe: a.cfg.Timing.Probe, Clock: a.clock, Logger: a.log, OnPathDown: a.pathDown})
	if err != nil {
		return err
	}
	if err := h.Start(); err != nil {
		return err
	}
	a.heart = h
	cancel := h.Subscribe(a.heartChanged)
	a.onStop("heartbeat", func(context.Context) error {
		cancel()
		h.Stop()
		return nil
	})
	a.startLinkWords()
	return nil
}

// loadGossipKey reads the key of the membership heartbeat: 32 bytes in hex, in
// a file that only root may read.
func loadGossipKey(path string) ([]byte, error) {
	text, err := secret.Read(path, 1<<10)
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != 32 {
		return nil, errors.Join(fmt.Errorf("gossip key %s: found %d bytes, 64 hexadecimal digits would be right", path, len(text)), err)
	}
	return key, nil
}

// pathDown takes the heartbeat's word that a path is dead.
func (a *agent) pathDown(node, path string, because []detect.Reason) {
	why := "dead by the heartbeat: " + reasonsText(because)
	if a.chooses(node) {
		a.paths.Reach(path, false, why)
		return
	}
	a.leavePath(node, path, why)
}

// chooses reports whether which path to a node is used is decided by more than
// the heartbeat.
func (a *agent) chooses(node string) bool { return a.paths != nil && node == a.cfg.Peer(a.self).Name }

func reasonsText(rs []detect.Reason) string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Text)
	}
	return strings.Join(out, "; ")
}

// heartChanged follows every change of a verdict.
func (a *agent) heartChanged(s heartbeat.Snapshot) {
	for name, n := range s.Nodes {
		for _, p := range n.Paths {
			switch {
			case p.State == detect.Dead:
			case a.chooses(name):
				a.paths.Reach(p.Path, true, "")
			default:
				a.net.PathUp(name, p.Path)
			}
		}
	}
	a.metAgain(s)
	a.record.Retry()
	a.wakeAll("heartbeat")
}

// heartHands is what failover needs of the heartbeat.
type heartHands struct{ a *agent }

func (h heartHands) Peer(node string) (plan.Verdict, []string, time.Duration) {
	n, ok := h.a.heart.Snapshot().Nodes[node]
	if !ok {
		return plan.Unheard, nil, 0
	}
	var reasons []string
	for _, r := range n.Reasons {
		reasons = append(reasons, r.Text)
	}
	v := map[detect.State]plan.Verdict{detect.Alive: plan.Alive, detect.Suspect: plan.Suspected, detect.Dead: plan.Dead}[n.State]
	return v, reasons, n.Since
}

// carrier is the cable at this node's end of a path.
func carrier(p detect.PathVerdict) string {
	for _, r := range p.Reasons {
		switch r.Code {
		case detect.NoCarrier:
			return apiv1.CarrierDown
		case detect.DeviceOff, detect.NoAddress:
			return apiv1.CarrierUnknown
		default: // says nothing of the cable
		}
	}
	return apiv1.CarrierUp
}

// members is the cluster as the heartbeat sees it.
func (a *agent) members() []apiv1.Member {
	snap := a.heart.Snapshot()
	nodes := *a.where.Load()
	var out []apiv1.Member
	for _, name := range a.memberNames() {
		m := apiv1.Member{Name: name, Kind: a.kindOf(name), State: apiv1.MemberUnknown, Self: name == a.self}
		if m.Self {
			m.State, m.UptimeS, m.Version = apiv1.MemberAlive, int64(time.Since(a.began).Seconds()), version
		}
		if n, ok := snap.Nodes[name]; ok {
			m.State = n.State.String()
			for _, r := range n.Reasons {
				m.Reasons = append(m.Reasons, r.Text)
			}
			m.Version = n.Version
			if n.Began > 0 {
				m.UptimeS = int64((a.clock() - n.Began).Seconds())
			}
			streams := a.streams(name)
			for _, p := range n.Paths {
				m.Paths = append(m.Paths, apiv1.Path{Name: p.Path, Address: nodes[name][p.Path].String(), State: p.State.String(),
					RTTUS: float64(n.RTT[p.Path].Nanoseconds()) / 1e3, Carrier: carrier(p), Streams: streams(p.Path)})
			}
		}
		out = append(out, m)
	}
	return out
}
