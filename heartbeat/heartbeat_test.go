package heartbeat

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"hapair/heartbeat/detect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = bytes.Repeat([]byte{7}, 32)

func addrs(pairs ...string) map[string]netip.Addr {
	m := map[string]netip.Addr{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = netip.MustParseAddr(pairs[i+1])
	}
	return m
}

func two() map[string]map[string]netip.Addr {
	return map[string]map[string]netip.Addr{
		"alpha": addrs("crossover", "127.9.0.1", "lan", "127.9.1.1"),
		"beta":  addrs("crossover", "127.9.0.2", "lan", "127.9.1.2"),
	}
}

// watched starts a node whose path losses and snapshots come on channels.
func watched(t *testing.T, cfg Config) (h *Heartbeat, down chan string) {
	t.Helper()
	down = make(chan string, 100)
	cfg.Cluster, cfg.Key = "shop", key
	cfg.OnPathDown = func(node, path string, _ []detect.Reason) { down <- node + " by " + path }
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	return h, down
}

// await waits until the verdict on node satisfies ok.
func await(t *testing.T, h *Heartbeat, node string, limit time.Duration, ok func(Node) bool) {
	t.Helper()
	seen := make(chan Snapshot, 1000)
	defer h.Subscribe(func(s Snapshot) { seen <- s })()
	timeout := time.After(limit)
	for now := h.Snapshot(); !ok(now.Nodes[node]); {
		select {
		case now = <-seen:
		case <-time.After(50 * time.Millisecond): // what no verdict changes with, such as the incarnation
			now = h.Snapshot()
		case <-timeout:
			t.Fatalf("after %s: %+v", limit, h.Snapshot().Nodes[node])
		}
	}
}

func is(want detect.State) func(Node) bool { return func(n Node) bool { return n.State == want } }

func allPaths(want detect.State) func(Node) bool {
	return func(n Node) bool {
		for _, p := range n.Paths {
			if p.State != want {
				return false
			}
		}
		return n.State == want
	}
}

// inMemory gives cfg a transport over w.
func inMemory(cfg Config, w *wires) Config {
	cfg.Port = 7000
	self := cfg.Nodes[cfg.Self]
	cfg.transport = func(path string) (memberlist.Transport, error) {
		return w.open(netip.AddrPortFrom(self[path], 7000)), nil
	}
	return cfg
}

// settle lets the goroutines of memberlist end, which outlive its Shutdown by
// a probe or a call, so that the bubble can be left.
func settle() { time.Sleep(10 * time.Second) }

func TestPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer settle()
		w := newWires()
		a, down := watched(t, inMemory(Config{Self: "alpha", Nodes: two(), Incarnation: 3}, w))
		defer a.Stop()
		b, _ := watched(t, inMemory(Config{Self: "beta", Nodes: two(), Incarnation: 4}, w))
		defer b.Stop()
		await(t, a, "beta", 5*time.Second, allPaths(detect.Alive))
		await(t, b, "alpha", 5*time.Second, func(n Node) bool { return n.Incarnation == 3 })

		w.set(true, "127.9.0.2:7000") // the crossover
		begin := time.Now()
		if got := <-down; got != "beta by crossover" {
			t.Errorf("down: %s", got)
		}
		if took := time.Since(begin); took > 1500*time.Millisecond {
			t.Errorf("noticed after %s", took)
		}
		time.Sleep(10 * time.Second)
		if n := a.Snapshot().Nodes["beta"]; n.State != detect.Alive {
			t.Errorf("one path lost: %+v", n)
		}

		w.set(true, "127.9.1.2:7000")
		begin = time.Now()
		await(t, a, "beta", 3*time.Second, is(detect.Dead))
		if took := time.Since(begin); took > 1500*time.Millisecond {
			t.Errorf("dead after %s", took)
		}
		time.Sleep(45 * time.Second) // membership alone would not find together again

		w.set(false, "127.9.0.2:7000", "127.9.1.2:7000")
		await(t, a, "beta", 10*time.Second, allPaths(detect.Alive))
		await(t, b, "alpha", 10*time.Second, allPaths(detect.Alive))
	})
}

func TestThreeNodesOneSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer settle()
		w, nodes := newWires(), two()
		nodes["gamma"] = addrs("lan", "127.9.1.3")
		var all []*Heartbeat
		for _, self := range []string{"alpha", "beta", "gamma"} {
			h, _ := watched(t, inMemory(Config{Self: self, Nodes: nodes}, w))
			defer h.Stop()
			all = append(all, h)
		}
		for i, h := range all {
			for j, peer := range []string{"alpha", "beta", "gamma"} {
				if i != j {
					await(t, h, peer, 10*time.Second, allPaths(detect.Alive))
				}
			}
		}
		time.Sleep(2 * time.Minute)
		for _, h := range all {
			for name, n := range h.Snapshot().Nodes {
				if n.State != detect.Alive || n.Since > 15*time.Second {
					t.Errorf("%s flapped in quiet: %+v", name, n)
				}
			}
		}
		w.set(true, "127.9.1.3:7000")
		await(t, all[0], "gamma", 3*time.Second, is(detect.Dead))
		if n := all[0].Snapshot().Nodes["beta"]; n.State != detect.Alive {
			t.Errorf("beta: %+v", n)
		}
	})
}

// A peer comes back at another address, having stopped or died: it is found as soon as
// it is said where.
func TestPeerMoves(t *testing.T) {
	for _, orderly := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			defer settle()
			w, nodes := newWires(), two()
			a, _ := watched(t, inMemory(Config{Self: "alpha", Nodes: nodes}, w))
			defer a.Stop()
			b, _ := watched(t, inMemory(Config{Self: "beta", Nodes: nodes}, w))
			await(t, a, "beta", 5*time.Second, allPaths(detect.Alive))
			if !orderly {
				w.set(true, "127.9.0.2:7000", "127.9.1.2:7000")
				await(t, a, "beta", 5*time.Second, is(detect.Dead))
			}
			b.Stop()
			moved := two()
			moved["beta"] = addrs("crossover", "127.9.0.22", "lan", "127.9.1.22")
			b, _ = watched(t, inMemory(Config{Self: "beta", Nodes: moved}, w))
			defer b.Stop()
			time.Sleep(5 * time.Second)
			if n := a.Snapshot().Nodes["beta"]; n.State != detect.Dead {
				t.Errorf("taken from where it should not be: %+v", n)
			}
			if err := a.SetNodes(moved); err != nil {
				t.Fatal(err)
			}
			await(t, a, "beta", 5*time.Second, allPaths(detect.Alive))
			await(t, b, "alpha", 5*time.Second, allPaths(detect.Alive))
		})
	}
}

// A witness comes, is watched as if it had always been there, and goes; the other peer
// is watched on meanwhile.
func TestPeersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer settle()
		w := newWires()
		a, _ := watched(t, inMemory(Config{Self: "alpha", Nodes: two()}, w))
		defer a.Stop()
		b, _ := watched(t, inMemory(Config{Self: "beta", Nodes: two()}, w))
		defer b.Stop()
		await(t, a, "beta", 5*time.Second, allPaths(detect.Alive))
		three := two()
		three["gamma"] = addrs("lan", "127.9.1.3")
		g, _ := watched(t, inMemory(Config{Self: "gamma", Nodes: three}, w))
		await(t, g, "beta", 5*time.Second, allPaths(detect.Alive)) // it is answered, though nobody watches it yet
		for _, h := range []*Heartbeat{a, b} {
			if err := h.SetNodes(three); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range []*Heartbeat{a, b} {
			await(t, h, "gamma", 10*time.Second, allPaths(detect.Alive))
			await(t, h, other(h), time.Second, allPaths(detect.Alive))
		}
		await(t, g, "beta", 10*time.Second, allPaths(detect.Alive))
		for _, h := range []*Heartbeat{a, b} {
			if err := h.SetNodes(two()); err != nil {
				t.Fatal(err)
			}
			if n, known := h.Snapshot().Nodes["gamma"]; known {
				t.Errorf("%+v", n)
			}
		}
		g.Stop()
		time.Sleep(5 * time.Second)
		for _, h := range []*Heartbeat{a, b} {
			if n := h.Snapshot().Nodes[other(h)]; n.State != detect.Alive {
				t.Errorf("%+v", n)
			}
		}
	})
}

func other(h *Heartbeat) string {
	return map[string]string{"alpha": "beta", "beta": "alpha"}[h.cfg.Self]
}

// Nothing else than who the peers are, and where, can change.
func TestOnlyPeersMove(t *testing.T) {
	a, err := New(Config{Self: "alpha", Nodes: two(), Port: 7000, Cluster: "shop", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(map[string]map[string]netip.Addr){
		"this node moves": func(n map[string]map[string]netip.Addr) { n["alpha"]["lan"] = netip.MustParseAddr("127.9.1.9") },
		"a path less":     func(n map[string]map[string]netip.Addr) { delete(n["beta"], "lan") },
		"a path renamed": func(n map[string]map[string]netip.Addr) {
			delete(n["beta"], "lan")
			n["beta"]["wan"] = netip.MustParseAddr("127.9.1.9")
		},
		"a node on another path": func(n map[string]map[string]netip.Addr) { n["gamma"] = addrs("wan", "127.9.1.3") },
	} {
		nodes := two()
		change(nodes)
		if err := a.SetNodes(nodes); !errors.Is(err, ErrFixed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	double := two()
	double["beta"]["lan"] = double["alpha"]["lan"]
	if err := a.SetNodes(double); err == nil {
		t.Error("two have one address")
	}
}

func TestMirrorLinkKeepsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer settle()
		w := newWires()
		a, _ := watched(t, inMemory(Config{Self: "alpha", Nodes: two()}, w))
		defer a.Stop()
		for range 20 {
			if err := a.Observe(detect.Evidence{Kind: detect.LinkAlive, Node: "beta"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
		}
		if n := a.Snapshot().Nodes["beta"]; n.State != detect.Alive || n.Reasons[0].Code != detect.MirrorLink {
			t.Errorf("%+v", n)
		}
		if err := a.Observe(detect.Evidence{Kind: detect.LinkAlive, Node: "delta"}); !errors.Is(err, detect.ErrUnknownEvidence) {
			t.Errorf("%v", err)
		}
		await(t, a, "beta", 3*time.Second, is(detect.Dead))
	})
}

// On real sockets: they find each other, one leaves, one comes back.
func TestLoopback(t *testing.T) {
	cfg := Config{Nodes: two(), Port: freePort(t), Version: "1.2.3", Detect: detect.Config{Recover: 200 * time.Millisecond}}
	cfg.Self = "alpha"
	a, _ := watched(t, cfg)
	defer a.Stop()
	cfg.Self = "beta"
	b, _ := watched(t, cfg)
	await(t, a, "beta", 10*time.Second, allPaths(detect.Alive))
	await(t, b, "alpha", 10*time.Second, allPaths(detect.Alive))
	await(t, a, "beta", 10*time.Second, func(n Node) bool { // what it tells of itself
		return n.Version == "1.2.3" && n.Began > 0 && n.RTT["lan"] > 0 && n.RTT["crossover"] > 0
	})
	begin := time.Now()
	b.Stop()
	stopped := time.Since(begin)
	await(t, a, "beta", 10*time.Second, allPaths(detect.Dead))
	t.Logf("stopping took %s; dead %s after it began", stopped, time.Since(begin))
	b, _ = watched(t, cfg)
	defer b.Stop()
	await(t, a, "beta", 15*time.Second, allPaths(detect.Alive))
	if err := b.Start(); !errors.Is(err, ErrStarted) {
		t.Errorf("second start: %v", err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A node with another key is not heard.
func TestWrongKeyIsNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer settle()
		w := newWires()
		a, _ := watched(t, inMemory(Config{Self: "alpha", Nodes: two()}, w))
		defer a.Stop()
		cfg := inMemory(Config{Self: "beta", Nodes: two(), Cluster: "shop", Key: bytes.Repeat([]byte{8}, 32)}, w)
		b, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Start(); err != nil {
			t.Fatal(err)
		}
		defer b.Stop()
		await(t, a, "beta", 10*time.Second, is(detect.Dead))
		if r := a.Snapshot().Nodes["beta"].Reasons[0]; r.Code != detect.NeverHeard {
			t.Errorf("%+v", r)
		}
	})
}

func TestAddressNotThereYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer settle()
		w := newWires()
		cfg := inMemory(Config{Self: "alpha", Nodes: two()}, w)
		open, tries := cfg.transport, atomic.Int32{}
		cfg.transport = func(path string) (memberlist.Transport, error) {
			if tries.Add(1) <= 6 {
				return nil, errors.New("cannot assign requested address")
			}
			return open(path)
		}
		a, _ := watched(t, cfg)
		defer a.Stop()
		b, _ := watched(t, inMemory(Config{Self: "beta", Nodes: two()}, w))
		defer b.Stop()
		await(t, a, "beta", 20*time.Second, allPaths(detect.Alive))
	})
}

func TestRefusals(t *testing.T) {
	good := Config{Self: "alpha", Nodes: two(), Port: 7000, Key: key}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no key":       func(c *Config) { c.Key = nil },
		"short key":    func(c *Config) { c.Key = key[:20] },
		"no self":      func(c *Config) { c.Self = "" },
		"unknown self": func(c *Config) { c.Self = "delta" },
		"port":         func(c *Config) { c.Port = 0 },
		"probe":        func(c *Config) { c.Probe = time.Millisecond },
		"same address": func(c *Config) { c.Nodes["beta"]["lan"] = c.Nodes["alpha"]["lan"] },
		"no address":   func(c *Config) { c.Nodes["beta"]["lan"] = netip.Addr{} },
		"verdicts":     func(c *Config) { c.Detect.SuspectAfter, c.Detect.DeadAfter = time.Second, time.Second },
	} {
		cfg := good
		cfg.Nodes = two()
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Config{Self: "alpha", Nodes: two(), Port: 7000}); !errors.Is(err, ErrNoKey) {
		t.Errorf("%v", err)
	}
}

func FuzzParseMeta(f *testing.F) {
	f.Add(appendMeta(nil, 7, ""))
	f.Add(appendMeta(nil, 7, "1.2.3"))
	f.Add([]byte{})
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, version, err := parseMeta(b)
		if err == nil && b[0] == metaVersion && len(b) <= metaBytes+versionMax && utf8.Valid(b[metaBytes:]) && !bytes.Equal(appendMeta(nil, n, version), b) {
			t.Fatalf("%x read as %d, %q", b, n, version)
		}
	})
}
