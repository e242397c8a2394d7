package peering

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"

	"go.uber.org/zap"

	"hapair/kernel/freebind"
)

// Net is this node's end of all streams. Its methods are safe for concurrent
// use.
type Net struct {
	cfg Config
	log *zap.Logger

	// ctx ends when Close begins; handshakes run under it.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // accept loops, handshakes, handlers

	mu struct {
		sync.Mutex
		closed    bool
		nodes     map[string]map[string]string
		listeners map[string]net.Listener // by path
		handlers  map[string]func(*Conn)  // by purpose prefix
		conns     map[*Conn]struct{}
		accepted  int                   // reserved or live accepted streams
		down      map[pathKey]bool      // true: it is well again, and to be left alone for a while
		traffic   map[pathKey]Traffic   // of streams that have ended
		shut      map[pathKey]struct{}  // see Shut
		dials     map[*attempt]struct{} // TCP connects and handshakes under way
	}
}

type pathKey struct{ node, path string }

// attempt is a dial under way over one path; PathDown cancels it.
type attempt struct {
	pathKey
	cancel context.CancelCauseFunc
}

// New judges cfg and returns a Net that neither listens nor dials yet.
func New(cfg Config) (*Net, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	n := &Net{cfg: cfg, log: cfg.Logger}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.mu.nodes = copyNodes(cfg.Nodes)
	n.mu.listeners = map[string]net.Listener{}
	n.mu.handlers = map[string]func(*Conn){}
	n.mu.conns = map[*Conn]struct{}{}
	n.mu.down = map[pathKey]bool{}
	n.mu.traffic = map[pathKey]Traffic{}
	n.mu.shut = map[pathKey]struct{}{}
	n.mu.dials = map[*attempt]struct{}{}
	return n, nil
}

func copyNodes(nodes map[string]map[string]string) map[string]map[string]string {
	out := make(map[string]map[string]string, len(nodes))
	for node, paths := range nodes {
		out[node] = maps.Clone(paths)
	}
	return out
}

// SetNodes replaces the addresses of all nodes, for a configuration read
// again. Streams of nodes that are gone are closed; listeners stay where they
// are until the next Listen.
func (n *Net) SetNodes(nodes map[string]map[string]string) error {
	if err := checkNodes(nodes); err != nil {
		return err
	}
	n.mu.Lock()
	n.mu.nodes = copyNodes(nodes)
	n.mu.Unlock()
	n.closeWhere("node was removed from the configuration", func(c *Conn) bool { _, ok := nodes[c.Node]; return !ok })
	return nil
}

// Listen opens a listener on each path of this node that has none yet. An
// address need not be configured on an interface yet. If one fails the others
// stay open: the error names each that did.
func (n *Net) Listen() error {
	n.mu.Lock()
	own := maps.Clone(n.mu.nodes[n.cfg.Node])
	n.mu.Unlock()
	var errs []error
	for _, path := range ordered(own, n.cfg.PathOrder) {
		if err := n.listenPath(path, own[path]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (n *Net) listenPath(path, address string) error {
	n.mu.Lock()
	_, have := n.mu.listeners[path]
	n.mu.Unlock()
	if have {
		return nil
	}
	target, err := endpoint(address)
	if err != nil {
		return fmt.Errorf("peering: listen on path %s: %w", path, err)
	}
	config := net.ListenConfig{Control: freebind.Control}
	l, err := config.Listen(n.ctx, "tcp", target)
	if err != nil {
		return fmt.Errorf("peering: listen on path %s: %w", path, err)
	}
	n.mu.Lock()
	_, have = n.mu.listeners[path]
	if n.mu.closed || have {
		closed := n.mu.closed
		n.mu.Unlock()
		if err := l.Close(); err != nil {
			return fmt.Errorf("peering: close the second listener of path %s: %w", path, err)
		}
		if closed {
			return ErrClosed
		}
		return nil
	}
	n.mu.listeners[path] = l
	n.wg.Add(1)
	n.mu.Unlock()
	n.log.Info("listening for peers", zap.String("path", path), zap.Stringer("address", l.Addr()), zap.Stringer("mode", n.cfg.Mode))
	go n.acceptLoop(l, path)
	return nil
}

// Addr returns where this node listens on a path; nil when it does not.
func (n *Net) Addr(path string) net.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l, ok := n.mu.listeners[path]; ok {
		return l.Addr()
	}
	return nil
}

// Handle gives accepted streams whose purpose is prefix, or begins with prefix
// and a slash, to fn; the longest prefix wins and nil removes one. fn runs on a
// goroutine of its own, owns the stream, and must return soon after the stream
// is closed: Close waits for it.
func (n *Net) Handle(prefix string, fn func(*Conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if fn == nil {
		delete(n.mu.handlers, prefix)
		return
	}
	n.mu.handlers[prefix] = fn
}

func (n *Net) handler(purpose string) func(*Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	best, found := "", (func(*Conn))(nil)
	for prefix, fn := range n.mu.handlers {
		if (found == nil || len(prefix) > len(best)) && hasPrefix(purpose, prefix) {
			best, found = prefix, fn
		}
	}
	return found
}

func hasPrefix(purpose, prefix string) bool {
	rest, ok := strings.CutPrefix(purpose, prefix)
	return ok && (rest == "" || rest[0] == '/' || prefix == "" || prefix[len(prefix)-1] == '/')
}

// PathDown says that a node's path is of no use at the moment: its streams
// are closed at once, but for those that stay (nil: none does), dials over it are
// given up, and Dial leaves it out until PathUp, unless no other path is left.
// Whoever names the path in Dial gets it nevertheless.
func (n *Net) PathDown(node, path string, stays func(*Conn) bool) {
	n.Avoid(node, path)
	n.closeOver(pathKey{node, path}, "path is down", stays)
}

// Avoid is the first half of PathDown: the streams there are stay.
func (n *Net) Avoid(node, path string) {
	key := pathKey{node, path}
	n.mu.Lock()
	n.mu.down[key] = false
	n.cancelDials(key)
	n.mu.Unlock()
}

// cancelDials gives up the dials under way over a path; mu is held.
func (n *Net) cancelDials(key pathKey) {
	for a := range n.mu.dials {
		if a.pathKey == key {
			a.cancel(ErrPathDown)
		}
	}
}

func (n *Net) closeOver(key pathKey, because string, stays func(*Conn) bool) {
	n.closeWhere(because, func(c *Conn) bool {
		return c.Node == key.node && c.Path == key.path && (stays == nil || !stays(c))
	})
}

// PathWell says that a path which is down would carry streams: where none is up it
// is tried before the others.
func (n *Net) PathWell(node, path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, down := n.mu.down[pathKey{node, path}]; down {
		n.mu.down[pathKey{node, path}] = true
	}
}

// PathUp takes PathDown back.
func (n *Net) PathUp(node, path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.down, pathKey{node, path})
}

// CloseStrangers closes every stream of a machine that is another than the one that
// has its node's name, for the moment when that has changed.
func (n *Net) CloseStrangers() {
	n.closeWhere("another machine is taken for the peer", func(c *Conn) bool { return n.stranger(c.Node, c.Machine, c.Purpose) != nil })
}

func (n *Net) closeWhere(because string, match func(*Conn) bool) {
	var closing []*Conn
	n.mu.Lock()
	for c := range n.mu.conns {
		if match(c) {
			closing = append(closing, c)
		}
	}
	n.mu.Unlock()
	for _, c := range closing {
		n.log.Info("stream closed", zap.String("peer", c.Node), zap.String("path", c.Path), zap.String("purpose", c.Purpose), zap.String("because", because))
		c.closeLogged(n.log)
	}
}

func (c *Conn) closeLogged(log *zap.Logger) {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		log.Warn("closing a stream failed", zap.String("peer", c.Node), zap.String("purpose", c.Purpose), zap.Error(err))
	}
}

// Close stops listening, closes every stream and waits for handshakes and
// handlers. It must not be called from a handler.
func (n *Net) Close() error {
	n.mu.Lock()
	n.mu.closed = true
	n.cancel()
	var errs []error
	for _, l := range n.mu.listeners {
		errs = append(errs, l.Close())
	}
	clear(n.mu.listeners)
	n.mu.Unlock()
	n.closeWhere("node stops", func(*Conn) bool { return true })
	n.wg.Wait()
	return errors.Join(errs...)
}

// adopt enters a dialed stream in the register, unless the Net is closing or
// ctx, which PathDown cancels under the same lock, is over.
func (n *Net) adopt(ctx context.Context, c *Conn) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed {
		return ErrClosed
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if n.isShut(c.Node, c.Path) {
		return ErrPathDown
	}
	if err := n.stranger(c.Node, c.Machine, c.Purpose); err != nil { // again: see CloseStrangers
		return err
	}
	n.mu.conns[c] = struct{}{}
	return nil
}

// forget takes a stream that is about to be closed out of the register.
func (n *Net) forget(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.mu.conns[c]; !ok {
		return
	}
	if c.accepted {
		n.mu.accepted--
	}
	delete(n.mu.conns, c)
	if i := c.info(); i != nil {
		t := n.mu.traffic[pathKey{c.Node, c.Path}]
		t.add(i)
		n.mu.traffic[pathKey{c.Node, c.Path}] = t
	}
}
