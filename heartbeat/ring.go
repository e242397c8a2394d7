package heartbeat

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"hapair/heartbeat/detect"
)

const (
	joinEvery    = time.Second // while somebody is missing
	leaveTimeout = 300 * time.Millisecond
)

// ring is the membership on one path. A path with its own ring fails alone.
type ring struct {
	h    *Heartbeat
	path string
	self netip.Addr
	log  *zap.Logger

	mu   sync.Mutex // a leaf
	peer map[string]netip.Addr

	ml      *memberlist.Memberlist // nil until it could be opened; owned by run after Start
	lastErr string                 // of opening, so that it is logged once; likewise
}

func newRing(h *Heartbeat, path string) *ring {
	r := &ring{h: h, path: path, self: h.cfg.Nodes[h.cfg.Self][path], peer: map[string]netip.Addr{}}
	r.log = h.cfg.Logger.With(zap.String("component", "memberlist"), zap.String("path", path))
	for node, paths := range h.cfg.Nodes {
		if addr := paths[path]; node != h.cfg.Self && addr.IsValid() {
			r.peer[node] = addr
		}
	}
	return r
}

// peers are the others and where they are.
func (r *ring) peers() map[string]netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.peer)
}

// config is tuned for two or three nodes on a good network: the library's own
// values take five seconds to give a peer up.
func (r *ring) config() (*memberlist.Config, error) {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = r.h.cfg.Self, r.h.cfg.Cluster
	c.BindAddr, c.BindPort = r.self.String(), r.h.cfg.Port
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, c.BindPort
	c.SecretKey = r.h.cfg.Key
	c.ProbeInterval, c.ProbeTimeout = r.h.cfg.Probe, r.h.cfg.Probe*3/4
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 2, 1
	c.AwarenessMaxMultiplier = 1 // slowness of our own must not slow detection
	c.DisableTcpPings = true     // the mirror link is the evidence over TCP
	c.GossipInterval = r.h.cfg.Probe / 2
	c.PushPullInterval = 50 * r.h.cfg.Probe
	c.TCPTimeout = 5 * r.h.cfg.Probe
	c.DNSConfigPath = "" // addresses only
	// One that is dead may come back at another address; which is right, NotifyAlive
	// knows from the configuration.
	c.DeadNodeReclaimTime = time.Nanosecond
	c.Logger = log.New(&zapWriter{log: r.log}, "", 0)
	c.Events, c.Ping, c.Alive, c.Delegate = r, r, r, r
	if r.h.cfg.transport != nil {
		t, err := r.h.cfg.transport(r.path)
		if err != nil {
			return nil, err
		}
		c.Transport = t
	}
	return c, nil
}

// open tries to begin; it fails while this node has not the path's address.
func (r *ring) open() {
	c, err := r.config()
	if err == nil {
		r.ml, err = memberlist.Create(c)
	}
	if err == nil {
		r.lastErr = ""
		return
	}
	r.ml = nil
	if text := err.Error(); text != r.lastErr {
		r.lastErr = text
		r.log.Warn("path not open yet", zap.Error(err))
	}
}

func (r *ring) run(ctx context.Context) {
	again := time.NewTicker(joinEvery)
	defer again.Stop()
	r.join()
	for {
		select {
		case <-ctx.Done():
			r.close()
			return
		case <-again.C:
			if r.ml == nil {
				r.open()
			}
			r.join()
		}
	}
}

// join calls on every peer that is missing: after a partition membership does
// not find together by itself.
func (r *ring) join() {
	if r.ml == nil {
		return
	}
	alive := map[string]bool{}
	for _, m := range r.ml.Members() {
		alive[m.Name] = true
	}
	for node, addr := range r.peers() {
		if alive[node] {
			continue
		}
		at := node + "/" + net.JoinHostPort(addr.String(), strconv.Itoa(r.h.cfg.Port))
		if _, err := r.ml.Join([]string{at}); err != nil {
			r.log.Debug("peer not reached", zap.String("peer", node), zap.Error(err))
		}
	}
}

func (r *ring) close() {
	if r.ml == nil {
		return
	}
	if err := r.ml.Leave(leaveTimeout); err != nil {
		r.log.Info("left without being heard", zap.Error(err))
	}
	if err := r.ml.Shutdown(); err != nil {
		r.log.Warn("membership not closed cleanly", zap.Error(err))
	}
}

func (r *ring) observe(kind detect.Kind, node, note string) {
	err := r.h.observe(detect.Evidence{Kind: kind, Node: node, Path: r.path, Note: note})
	if err != nil {
		r.log.Warn("evidence not used", zap.Error(err))
	}
}

// NotifyPingComplete is called when a peer answered a probe.
func (r *ring) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, payload []byte) {
	if _, known := r.peers()[n.Name]; !known || r.h.deafTo(n.Name, r.path) {
		return // one that was a peer until just now
	}
	r.h.learnAnswer(n.Name, r.path, rtt, payload)
	r.observe(detect.Heard, n.Name, "")
}

// AckPayload adds to an answer for how long this node has been up.
func (r *ring) AckPayload() []byte { return appendUptime(nil, r.h.cfg.Clock()-r.h.began) }

// NotifyJoin is called when a peer is known, which is not yet an answer.
func (r *ring) NotifyJoin(n *memberlist.Node) { r.NotifyUpdate(n) }

// NotifyUpdate is called when a peer tells something new of itself.
func (r *ring) NotifyUpdate(n *memberlist.Node) {
	if n.Name == r.h.cfg.Self {
		return
	}
	incarnation, version, err := parseMeta(n.Meta)
	if err != nil {
		r.log.Warn("peer tells nonsense of itself", zap.String("peer", n.Name), zap.Error(err))
		return
	}
	r.h.learnMeta(n.Name, incarnation, version)
}

// NotifyLeave is called when a peer was given up or said that it leaves; the
// library does not tell which (Node.State is never filled in). Either is less
// than silence: the detector believes it only of a peer not heard lately.
func (r *ring) NotifyLeave(n *memberlist.Node) {
	if _, known := r.peers()[n.Name]; known {
		r.observe(detect.MemberDead, n.Name, "or it left")
	}
}

// NotifyAlive refuses nodes that the configuration does not name, or that are
// not where it says.
func (r *ring) NotifyAlive(n *memberlist.Node) error {
	want, ok := r.peers()[n.Name]
	if n.Name == r.h.cfg.Self {
		want, ok = r.self, true
	}
	got, _ := netip.AddrFromSlice(n.Addr)
	if !ok || got.Unmap() != want || int(n.Port) != r.h.cfg.Port {
		return fmt.Errorf("node %q at %s port %d on path %s: the configuration says %s port %d", n.Name, got.Unmap(), n.Port, r.path, want, r.h.cfg.Port)
	}
	return nil
}

// NodeMeta is what this node tells of itself.
func (r *ring) NodeMeta(int) []byte { return appendMeta(nil, r.h.cfg.Incarnation, r.h.cfg.Version) }

// NotifyMsg, GetBroadcasts, LocalState and MergeRemoteState are not used.
func (r *ring) NotifyMsg([]byte) {}

// GetBroadcasts has nothing to say.
func (r *ring) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has nothing to say.
func (r *ring) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what is said.
func (r *ring) MergeRemoteState([]byte, bool) {}

// zapWriter passes the library's lines on, at the level they carry.
type zapWriter struct{ log *zap.Logger }

var _ io.Writer = (*zapWriter)(nil)

// Write takes one line.
func (w *zapWriter) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	level, text, ok := strings.Cut(strings.TrimPrefix(line, "["), "] ")
	if !ok {
		level, text = "", line
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	switch level {
	case "ERR", "WARN": // the verdicts say what matters of it
		w.log.Info(text)
	default:
		w.log.Debug(text)
	}
	return len(b), nil
}
