package bubble

import (
	"context"
	"errors"
	"math/rand"
	"net"
	"sync"
	"time"

	"hapair/failover/ledger/ledgertest"
)

// fabric is the network: streams by ledgertest, datagrams by gossip.go, both
// cut, paused and crashed together.
type fabric struct {
	streams *ledgertest.Net

	mu     sync.Mutex
	rng    *rand.Rand
	cut    map[[2]string]bool // directed
	paused map[string]bool
	down   map[string]bool
	slow   time.Duration // the longest a message travels
	loss   float64       // of datagrams
	ends   map[string]*end
	last   map[[2]string]time.Time // when the traffic was last cut
}

const quickest = 100 * time.Microsecond

func newFabric(seed int64) *fabric {
	f := &fabric{streams: ledgertest.NewNet(seed), rng: rand.New(rand.NewSource(seed)), cut: map[[2]string]bool{},
		paused: map[string]bool{}, down: map[string]bool{}, slow: time.Millisecond, ends: map[string]*end{}, last: map[[2]string]time.Time{}}
	f.streams.Latency(func(r *rand.Rand, _, _ string) time.Duration { return f.latency(r) })
	return f
}

func (f *fabric) latency(r *rand.Rand) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return quickest + time.Duration(r.Int63n(int64(f.slow)))
}

// weather sets how long messages travel at most, and how many datagrams are lost.
func (f *fabric) weather(slow time.Duration, loss float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slow, f.loss = slow, loss
}

func (f *fabric) cutLink(a, b string) { f.cutOneWay(a, b); f.cutOneWay(b, a) }

func (f *fabric) cutOneWay(from, to string) {
	f.mu.Lock()
	f.cut[[2]string{from, to}] = true
	f.mu.Unlock()
	f.streams.CutOneWay(from, to)
}

// troubled reports whether a and b could not reach each other, now or lately.
func (f *fabric) troubled(a, b string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	there, back := [2]string{a, b}, [2]string{b, a}
	lately := func(k [2]string) bool { return !f.last[k].IsZero() && time.Since(f.last[k]) < 5*time.Second }
	return f.cut[there] || f.cut[back] || lately(there) || lately(back)
}

func (f *fabric) heal(a, b string) {
	f.mu.Lock()
	for _, k := range [][2]string{{a, b}, {b, a}} {
		if f.cut[k] {
			f.last[k] = time.Now()
		}
	}
	delete(f.cut, [2]string{a, b})
	delete(f.cut, [2]string{b, a})
	f.mu.Unlock()
	f.streams.Heal(a, b)
}

func (f *fabric) healAll() {
	for i, a := range allNodes {
		for _, b := range allNodes[i+1:] {
			f.heal(a, b)
		}
	}
}

func (f *fabric) isolate(node string) {
	for _, other := range allNodes {
		if other != node {
			f.cutLink(node, other)
		}
	}
}

func (f *fabric) pause(node string, on bool) {
	f.mu.Lock()
	f.paused[node] = on
	f.mu.Unlock()
	if on {
		f.streams.Pause(node)
	} else {
		f.streams.Resume(node)
	}
}

// crash takes the power from a node's network.
func (f *fabric) crash(node string) {
	f.mu.Lock()
	f.down[node] = true
	f.mu.Unlock()
	f.streams.Crash(node)
}

func (f *fabric) powerOn(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down[node] = false
}

func (f *fabric) blocked(from, to string) bool {
	return f.cut[[2]string{from, to}] || f.paused[from] || f.paused[to] || f.down[from] || f.down[to]
}

var errDead = errors.New("this process is dead")

// port is one process's access to the streams. It fits ledger.Streams.
type port struct {
	f    *fabric
	node string

	mu    sync.Mutex
	dead  bool
	dark  bool // the power is cut: nobody hears that the streams end
	conns map[*tracked]struct{}
	grave []net.Conn // closed in the dark
}

func (f *fabric) port(node string) *port {
	return &port{f: f, node: node, conns: map[*tracked]struct{}{}}
}

// tracked is a stream its process can be robbed of.
type tracked struct {
	net.Conn
	p    *port
	peer string
}

// OnPath names the only path there is.
func (c *tracked) OnPath() string { return path }

func (c *tracked) Close() error {
	c.p.mu.Lock()
	delete(c.p.conns, c)
	dark := c.p.dark
	if dark {
		c.p.grave = append(c.p.grave, c.Conn)
	}
	c.p.mu.Unlock()
	if dark {
		return c.Conn.SetReadDeadline(time.Unix(0, 0)) // readers of this process go
	}
	return c.Conn.Close()
}

func (p *port) track(peer string, c net.Conn) (*tracked, error) {
	t := &tracked{c, p, peer}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return nil, errors.Join(errDead, c.Close())
	}
	p.conns[t] = struct{}{}
	return t, nil
}

func (p *port) Dial(ctx context.Context, node, purpose string) (net.Conn, error) {
	p.mu.Lock()
	dead := p.dead
	p.mu.Unlock()
	if dead {
		return nil, errDead
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := p.f.streams.Node(p.node).Dial(ctx, node, purpose)
	if err != nil {
		return nil, err
	}
	return p.track(node, c)
}

func (p *port) Handle(prefix string, fn func(node string, c net.Conn)) {
	p.f.streams.Node(p.node).Handle(prefix, func(node string, c net.Conn) {
		if t, err := p.track(node, c); err == nil {
			fn(node, t)
		}
	})
}

// closeTo ends all streams with a node, "" for all nodes.
func (p *port) closeTo(node string) {
	p.mu.Lock()
	var closing []*tracked
	for c := range p.conns {
		if node == "" || c.peer == node {
			closing = append(closing, c)
		}
	}
	p.mu.Unlock()
	for _, c := range closing {
		_ = c.Close() // it may be closed already
	}
}

// kill ends the process's streams, as its kernel does; with the power cut
// nobody hears of it before bury.
func (p *port) kill(power bool) {
	p.mu.Lock()
	p.dead, p.dark = true, power
	p.mu.Unlock()
	p.closeTo("")
}

func (p *port) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// bury resets what the power cut left: the node is back.
func (p *port) bury() {
	p.mu.Lock()
	grave := p.grave
	p.grave, p.dark = nil, false
	p.mu.Unlock()
	for _, c := range grave {
		_ = c.Close() // it may be closed already
	}
	p.closeTo("")
}
