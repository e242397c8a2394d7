package peering

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is two nodes with two paths on loopback.
type world struct {
	alpha, beta *Net
	incarnation map[string]*atomic.Uint64
	refused     map[string]chan *RefusedError
	nodes       map[string]map[string]string
}

// newWorld starts alpha and beta; change may spoil a configuration before.
func newWorld(t *testing.T, mode Mode, change func(node string, c *Config)) *world {
	t.Helper()
	w := &world{incarnation: map[string]*atomic.Uint64{}, refused: map[string]chan *RefusedError{}}
	w.nodes = map[string]map[string]string{
		"alpha": {"crossover": "127.0.1.1:0", "lan": "127.0.2.1:0"},
		"beta":  {"crossover": "127.0.1.2:0", "lan": "127.0.2.2:0"},
	}
	ca, err := CreateCA("shop")
	if err != nil {
		t.Fatal(err)
	}
	key := bytes.Repeat([]byte{7}, KeyBytes)
	start := func(node string) *Net {
		inc, refused := &atomic.Uint64{}, make(chan *RefusedError, 16)
		inc.Store(5)
		w.incarnation[node], w.refused[node] = inc, refused
		c := Config{Cluster: "shop", Node: node, Nodes: w.nodes, PathOrder: []string{"crossover", "lan"}, Mode: mode, Key: key,
			Incarnation: inc.Load, Refused: func(e *RefusedError) { refused <- e }, Logger: zaptest.NewLogger(t).Named(node)}
		c.Material = material(t, ca, "shop", node)
		if change != nil {
			change(node, &c)
		}
		n, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Listen(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		return n
	}
	w.alpha, w.beta = start("alpha"), start("beta")
	for _, path := range []string{"crossover", "lan"} {
		w.nodes["alpha"][path], w.nodes["beta"][path] = w.alpha.Addr(path).String(), w.beta.Addr(path).String()
	}
	w.set(t)
	return w
}

func (w *world) set(t *testing.T) {
	t.Helper()
	for _, n := range []*Net{w.alpha, w.beta} {
		if err := n.SetNodes(w.nodes); err != nil {
			t.Fatal(err)
		}
	}
}

func material(t *testing.T, ca Pair, cluster, node string) *Material {
	t.Helper()
	pair, err := IssueNode(ca, cluster, node)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMaterial(ca.Cert, pair)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func echo(c *Conn) {
	_, err := io.Copy(c.Conn, c.Conn)
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	_ = err // the other end decides when it is over
}

func bothModes(t *testing.T, f func(t *testing.T, mode Mode)) {
	for _, mode := range []Mode{TLS, PSK} {
		t.Run(mode.String(), func(t *testing.T) { f(t, mode) })
	}
}

func TestDialAndTalk(t *testing.T) {
	bothModes(t, func(t *testing.T, mode Mode) {
		w := newWorld(t, mode, nil)
		seen := make(chan *Conn, 1)
		w.beta.Handle("mirror", func(c *Conn) { seen <- c; echo(c) })
		c, err := w.alpha.Dial(testContext(t), "beta", "", "mirror/pg/data")
		if err != nil {
			t.Fatal(err)
		}
		if c.Node != "beta" || c.Path != "crossover" || c.Incarnation != 5 {
			t.Fatalf("dialed %s on %s, incarnation %d", c.Node, c.Path, c.Incarnation)
		}
		if host, _, err := net.SplitHostPort(c.LocalAddr().String()); err != nil || host != "127.0.1.1" {
			t.Fatalf("source address %s, %v", c.LocalAddr(), err)
		}
		if far := <-seen; far.Node != "alpha" || far.Path != "crossover" || far.Purpose != "mirror/pg/data" || far.Incarnation != 5 {
			t.Fatalf("accepted %+v", far)
		}
		if (c.Raw() != nil) != (mode == PSK) {
			t.Fatalf("raw connection %v", c.Raw())
		}
		talk(t, c, []byte("every stream carries what it is given"))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func talk(t *testing.T, c net.Conn, text []byte) {
	t.Helper()
	if _, err := c.Write(text); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(c, back); err != nil || !bytes.Equal(back, text) {
		t.Fatalf("%q, %v", back, err)
	}
}

// Each refusal is the same on both sides.
func TestRefusals(t *testing.T) {
	tests := map[string]struct {
		code    Code
		purpose string
		change  func(node string, c *Config)
		spoil   func(w *world)
		dialer  error // what errors.Is finds at the dialing node
		other   error // and at the accepting one
	}{
		"unknown purpose": {code: UnknownPurpose, purpose: "bogus"},
		"lower incarnation": {code: LowerIncarnation, spoil: func(w *world) { w.incarnation["alpha"].Store(4) },
			dialer: ErrLeftBehind, other: ErrPeerBehind},
		"peer of a lower incarnation": {code: PeerIncarnation, spoil: func(w *world) { w.incarnation["beta"].Store(4) },
			dialer: ErrPeerBehind, other: ErrLeftBehind},
		"unknown node": {code: UnknownNode, spoil: func(w *world) {
			delete(w.beta.mu.nodes, "alpha")
		}},
	}
	bothModes(t, func(t *testing.T, mode Mode) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, mode, tt.change)
				w.beta.Handle("mirror", echo)
				if tt.spoil != nil {
					tt.spoil(w)
				}
				purpose := tt.purpose
				if purpose == "" {
					purpose = "mirror/pg/data"
				}
				_, err := w.alpha.Dial(testContext(t), "beta", "lan", purpose)
				var refused *RefusedError
				if !errors.As(err, &refused) || refused.Code != tt.code || !refused.Dialed || refused.Node != "beta" || refused.Text == "" {
					t.Fatalf("dialing side: %v", err)
				}
				if tt.dialer != nil && !errors.Is(err, tt.dialer) {
					t.Fatalf("dialing side: %v is not %v", err, tt.dialer)
				}
				if told := <-w.refused["alpha"]; told.Code != tt.code {
					t.Fatalf("dialing side was told %v", told)
				}
				far := <-w.refused["beta"]
				if far.Code != tt.code || far.Dialed || far.Node != "alpha" || far.PeerIncarnation != w.incarnation["alpha"].Load() {
					t.Fatalf("accepting side: %v", far)
				}
				if tt.other != nil && !errors.Is(far, tt.other) {
					t.Fatalf("accepting side: %v is not %v", far, tt.other)
				}
			})
		}
	})
}

func TestRejoinIsExemptFromIncarnation(t *testing.T) {
	w := newWorld(t, PSK, nil)
	w.beta.Handle("rejoin", echo)
	w.incarnation["alpha"].Store(1)
	c, err := w.alpha.Dial(testContext(t), "beta", "", "rejoin/ledger")
	if err != nil {
		t.Fatal(err)
	}
	if c.Incarnation != 5 {
		t.Fatalf("incarnation %d", c.Incarnation)
	}
	talk(t, c, []byte("let me in"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStrangersAreKeptOut(t *testing.T) {
	other, err := CreateCA("shop") // same name, other authority
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(node string, c *Config){
		"other key": func(node string, c *Config) {
			if c.Mode = PSK; node == "alpha" {
				c.Key = bytes.Repeat([]byte{8}, KeyBytes)
			}
		},
		"other authority": func(node string, c *Config) {
			if c.Mode = TLS; node == "alpha" {
				c.Material = material(t, other, "shop", "alpha")
			}
		},
		"other cluster with the same key": func(node string, c *Config) {
			if c.Mode = PSK; node == "alpha" {
				c.Cluster = "bar"
			}
		},
		"psk against tls": func(node string, c *Config) {
			if c.Mode = TLS; node == "alpha" {
				c.Mode = PSK
			}
		},
		"tls against psk": func(node string, c *Config) {
			if c.Mode = PSK; node == "alpha" {
				c.Mode = TLS
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, TLS, change)
			w.beta.Handle("raft", func(c *Conn) { t.Error("let in"); echo(c) })
			_, err := w.alpha.Dial(testContext(t), "beta", "lan", "raft")
			var refused *RefusedError
			switch {
			case err == nil:
				t.Fatal("let in")
			case name == "other cluster with the same key":
				if !errors.As(err, &refused) || refused.Code != WrongCluster {
					t.Fatal(err)
				}
			case !errors.Is(err, ErrAuthentication) && !errors.Is(err, ErrProtocol) && !errors.Is(err, io.EOF):
				t.Fatal(err)
			}
			t.Log(err)
		})
	}
}

// A certificate of one node does not open the door to another name.
func TestCertificateOfAnotherNode(t *testing.T) {
	ca, err := CreateCA("shop")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Cluster: "shop", Node: "alpha", Nodes: map[string]map[string]string{"alpha": {}}, Mode: TLS,
		Material: material(t, ca, "shop", "beta"), Incarnation: func() uint64 { return 1 }}
	if _, err := New(c); err == nil {
		t.Fatal("started with the certificate of another node")
	}
}

func TestFallsBackToTheNextPath(t *testing.T) {
	bothModes(t, func(t *testing.T, mode Mode) {
		w := newWorld(t, mode, nil)
		w.beta.Handle("raft", echo)
		hole := blackHole(t, "127.0.1.2:0")
		w.nodes["beta"]["crossover"] = hole
		w.alpha.cfg.HandshakeTimeout, w.alpha.cfg.HandshakeTurn = time.Hour, 200*time.Millisecond
		w.set(t)
		c, err := w.alpha.Dial(testContext(t), "beta", "", "raft")
		if err != nil {
			t.Fatal(err)
		}
		if c.Path != "lan" {
			t.Fatalf("path %s", c.Path)
		}
		talk(t, c, []byte("the long way round"))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// blackHole accepts in the kernel and never says a word.
func blackHole(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestRefusedConnectFallsBackAtOnce(t *testing.T) {
	w := newWorld(t, PSK, nil)
	w.beta.Handle("raft", echo)
	w.nodes["beta"]["crossover"] = "127.0.1.2:1" // nobody listens
	w.alpha.cfg.Stagger = time.Hour
	w.set(t)
	c, err := w.alpha.Dial(testContext(t), "beta", "", "raft")
	if err != nil || c.Path != "lan" {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPathDown(t *testing.T) {
	bothModes(t, func(t *testing.T, mode Mode) {
		w := newWorld(t, mode, nil)
		w.beta.Handle("raft", echo)
		ctx := testContext(t)
		c, err := w.alpha.Dial(ctx, "beta", "", "raft")
		if err != nil {
			t.Fatal(err)
		}
		lan, err := w.alpha.Dial(ctx, "beta", "lan", "raft")
		if err != nil {
			t.Fatal(err)
		}
		w.alpha.PathDown("beta", "crossover", nil)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("a stream on the dead path: %v", err)
		}
		talk(t, lan, []byte("the other path does not notice"))
		if c, err = w.alpha.Dial(ctx, "beta", "crossover", "raft"); err != nil || c.Path != "crossover" {
			t.Fatalf("a path that was named: %+v, %v", c, err)
		}
		if c, err = w.alpha.Dial(ctx, "beta", "", "raft"); err != nil || c.Path != "lan" {
			t.Fatalf("%+v, %v", c, err)
		}
		w.alpha.PathUp("beta", "crossover")
		if c, err = w.alpha.Dial(ctx, "beta", "", "raft"); err != nil || c.Path != "crossover" {
			t.Fatalf("%+v, %v", c, err)
		}
	})
}

// A dial that hangs on a path ends the moment the path is declared down.
func TestPathDownCancelsDial(t *testing.T) {
	w := newWorld(t, PSK, nil)
	w.nodes["beta"]["crossover"] = blackHole(t, "127.0.1.2:0")
	w.alpha.cfg.HandshakeTimeout = time.Hour
	w.set(t)
	done := make(chan error, 1)
	ctx := testContext(t)
	go func() {
		_, err := w.alpha.Dial(ctx, "beta", "crossover", "raft")
		done <- err
	}()
	for {
		w.alpha.mu.Lock()
		n := len(w.alpha.mu.dials)
		w.alpha.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(time.Millisecond) // polled: nobody announces an attempt
	}
	w.alpha.PathDown("beta", "crossover", nil)
	if err := <-done; !errors.Is(err, ErrPathDown) {
		t.Fatal(err)
	}
}

func TestHandshakeIsBounded(t *testing.T) {
	bothModes(t, func(t *testing.T, mode Mode) {
		w := newWorld(t, mode, func(_ string, c *Config) { c.HandshakeTimeout = 50 * time.Millisecond })
		for name, first := range map[string][]byte{
			"silence": nil, "garbage": bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 300), "half a preamble": []byte("HAPK"),
		} {
			conn, err := net.Dial("tcp", w.beta.Addr("lan").String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(first); err != nil {
				t.Logf("%s: cut off while writing: %v", name, err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			var timeout net.Error
			if _, err := io.Copy(io.Discard, conn); errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("%s: still connected after 10 s", name)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	w := newWorld(t, TLS, nil)
	w.beta.Handle("raft", echo)
	c, err := w.alpha.Dial(testContext(t), "beta", "", "raft")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.beta.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("read from a closed node")
	}
	if err := w.alpha.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.alpha.Dial(testContext(t), "beta", "", "raft"); !errors.Is(err, ErrClosed) {
		t.Fatalf("dial after Close: %v", err)
	}
}

func TestConfigIsJudged(t *testing.T) {
	good := func() Config {
		return Config{Cluster: "shop", Node: "alpha", Nodes: map[string]map[string]string{"alpha": {"lan": "127.0.0.1"}}, Mode: PSK,
			Key: make([]byte, KeyBytes), Incarnation: func() uint64 { return 0 }}
	}
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(c *Config){
		"cluster name":     func(c *Config) { c.Cluster = "a shop" },
		"no own address":   func(c *Config) { c.Node = "beta" },
		"bad address":      func(c *Config) { c.Nodes["alpha"]["lan"] = "127.0.0.1:x" },
		"empty address":    func(c *Config) { c.Nodes["alpha"]["lan"] = "" },
		"bad path name":    func(c *Config) { c.Nodes["alpha"]["l/n"] = "127.0.0.1" },
		"short key":        func(c *Config) { c.Key = c.Key[:31] },
		"no mode":          func(c *Config) { c.Mode = 0 },
		"no certificate":   func(c *Config) { c.Mode = TLS },
		"no incarnation":   func(c *Config) { c.Incarnation = nil },
		"name too long":    func(c *Config) { c.Cluster = string(bytes.Repeat([]byte("x"), 64)) },
		"port 0 by a name": func(c *Config) { c.Nodes["alpha"]["lan"] = "localhost:0" },
	} {
		c := good()
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:7790", "10.0.0.1:1": "10.0.0.1:1", "fe80::1": "[fe80::1]:7790", "[fe80::1]:9": "[fe80::1]:9",
		"beta": "beta:7790", "beta:80": "beta:80",
	} {
		if got, err := endpoint(in); err != nil || got != want {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
}
