// Package ledgertest is a network in memory for tests of the ledger and of what
// is built on it: streams that can be cut, healed, paused, delayed and broken.
// It works inside testing/synctest.
package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"strings"
	"sync"
	"time"
)

// ErrRefused is the error of dialing a node that is up but serves no such purpose.
var ErrRefused = errors.New("connection refused")

// Net joins nodes. The zero value is not usable; see NewNet.
type Net struct {
	mu      sync.Mutex
	rng     *rand.Rand
	latency func(r *rand.Rand, from, to string) time.Duration
	nodes   map[string]*Node
	cut     map[[2]string]bool // directed
	paused  map[string]bool
	halves  map[*half]struct{}
	changed chan struct{} // closed and replaced when who reaches whom changes
}

// NewNet returns a network without faults and with 100 µs of latency.
func NewNet(seed int64) *Net {
	return &Net{
		rng: rand.New(rand.NewSource(seed)), latency: func(*rand.Rand, string, string) time.Duration { return 100 * time.Microsecond },
		nodes: map[string]*Node{}, cut: map[[2]string]bool{}, paused: map[string]bool{},
		halves: map[*half]struct{}{}, changed: make(chan struct{}),
	}
}

// Latency sets how long each write travels. Writes on one stream keep their order.
func (n *Net) Latency(f func(r *rand.Rand, from, to string) time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency = f
}

// Node returns the streams of a node, made at the first call.
func (n *Net) Node(name string) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes[name] == nil {
		n.nodes[name] = &Node{net: n, name: name, handlers: map[string]func(string, net.Conn){}}
	}
	return n.nodes[name]
}

// Cut stops all traffic between a and b, silently: what is sent meanwhile
// arrives after Heal, if the stream is still open then.
func (n *Net) Cut(a, b string) { n.CutOneWay(a, b); n.CutOneWay(b, a) }

// CutOneWay stops the traffic from one node to another.
func (n *Net) CutOneWay(from, to string) {
	n.change(func() { n.cut[[2]string{from, to}] = true })
}

// Heal undoes Cut.
func (n *Net) Heal(a, b string) {
	n.change(func() { delete(n.cut, [2]string{a, b}); delete(n.cut, [2]string{b, a}) })
}

// HealAll undoes every cut and pause.
func (n *Net) HealAll() { n.change(func() { clear(n.cut); clear(n.paused) }) }

// Pause freezes a node as the others see it: nothing leaves or reaches it until
// Resume, when all that was held up arrives late.
func (n *Net) Pause(node string) { n.change(func() { n.paused[node] = true }) }

// Resume undoes Pause.
func (n *Net) Resume(node string) { n.change(func() { delete(n.paused, node) }) }

// Isolate cuts a node off from all others.
func (n *Net) Isolate(node string) {
	n.mu.Lock()
	var others []string
	for name := range n.nodes {
		if name != node {
			others = append(others, name)
		}
	}
	n.mu.Unlock()
	for _, o := range others {
		n.Cut(node, o)
	}
}

// Crash takes the power from a node: its streams fail on its own side, and fall
// silent for the others. Its handlers are gone; close what ran on it after.
func (n *Net) Crash(node string) {
	n.change(func() {
		if nd := n.nodes[node]; nd != nil {
			clear(nd.handlers)
			nd.down = true
		}
		for h := range n.halves {
			if h.from == node || h.to == node {
				h.silent = true
			}
		}
	})
}

// change alters the topology and has everybody look again.
func (n *Net) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
	for h := range n.halves {
		h.wake()
	}
}

func (n *Net) blocked(from, to string) bool {
	return n.cut[[2]string{from, to}] || n.paused[from] || n.paused[to]
}

// Node is one node's streams. It fits ledger.Streams.
type Node struct {
	net      *Net
	name     string
	down     bool
	handlers map[string]func(string, net.Conn)
}

// Handle implements ledger.Streams.
func (d *Node) Handle(prefix string, fn func(node string, c net.Conn)) {
	d.net.change(func() { d.handlers[prefix] = fn; d.down = false })
}

// Dial implements ledger.Streams.
func (d *Node) Dial(ctx context.Context, node, purpose string) (net.Conn, error) {
	n := d.net
	for {
		n.mu.Lock()
		to := n.nodes[node]
		fn, reach := to.handler(purpose), to != nil && !to.down && !n.blocked(d.name, node) && !n.blocked(node, d.name)
		if fn != nil && reach {
			mine, theirs := n.pair(d.name, node)
			n.mu.Unlock()
			go fn(d.name, theirs)
			return mine, nil
		}
		changed := n.changed
		n.mu.Unlock()
		if reach {
			return nil, fmt.Errorf("%s to %s for %s: %w", d.name, node, purpose, ErrRefused)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s to %s for %s: %w", d.name, node, purpose, ctx.Err())
		}
	}
}

func (d *Node) handler(purpose string) func(string, net.Conn) {
	if d == nil {
		return nil
	}
	for prefix, fn := range d.handlers {
		if strings.HasPrefix(purpose, prefix) {
			return fn
		}
	}
	return nil
}

func (n *Net) pair(a, b string) (net.Conn, net.Conn) {
	there, back := n.half(a, b), n.half(b, a)
	return &conn{in: back, out: there, local: a, remote: b}, &conn{in: there, out: back, local: b, remote: a}
}

func (n *Net) half(from, to string) *half {
	h := &half{net: n, from: from, to: to, changed: make(chan struct{})}
	n.halves[h] = struct{}{}
	return h
}
