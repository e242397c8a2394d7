package peering

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"
)

// Dial opens an authenticated stream to a node. With path "" the node's paths
// are tried in order, each with a short head start over the next, and the
// first that connects and shakes hands wins; a path that is down is left out
// unless all are. One that is named is tried in any case. An error wraps what each path said; errors.As finds a
// RefusedError in it, errors.Is ErrUnknownNode, ErrUnknownPath, ErrPathDown,
// ErrClosed or ErrAuthentication.
func (n *Net) Dial(ctx context.Context, node, path, purpose string) (*Conn, error) {
	if err := checkPurpose(purpose); err != nil {
		return nil, fmt.Errorf("peering: dial node %s: %w", node, err)
	}
	targets, err := n.targets(node, path)
	if err != nil {
		return nil, fmt.Errorf("peering: dial node %s for %q: %w", node, purpose, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(n.ctx, cancel)
	defer stop()
	c, err := n.race(ctx, node, purpose, targets)
	if err != nil {
		if n.ctx.Err() != nil {
			err = ErrClosed
		}
		return nil, fmt.Errorf("peering: dial node %s for %q: %w", node, purpose, err)
	}
	return c, nil
}

// target is one address to try.
type target struct{ path, address, source string }

func (n *Net) targets(node, path string) ([]target, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	paths, ok := n.mu.nodes[node]
	switch {
	case n.mu.closed:
		return nil, ErrClosed
	case !ok || node == n.cfg.Node:
		return nil, fmt.Errorf("%q: %w", node, ErrUnknownNode)
	}
	names := ordered(paths, n.cfg.PathOrder)
	if path != "" {
		if _, ok := paths[path]; !ok {
			return nil, fmt.Errorf("%q: %w", path, ErrUnknownPath)
		}
		names = []string{path}
	}
	var up, well, down []target
	for _, name := range names {
		if n.isShut(node, name) {
			continue
		}
		t := target{path: name, address: paths[name], source: n.mu.nodes[n.cfg.Node][name]}
		switch again, is := n.mu.down[pathKey{node, name}]; {
		case !is:
			up = append(up, t)
		case again:
			well = append(well, t)
		default:
			down = append(down, t)
		}
	}
	if len(up) == 0 {
		up = append(well, down...) // the evidence may be stale, and there is nothing to lose
	}
	switch {
	case len(up) > 0:
		return up, nil
	case len(names) > 0:
		return nil, ErrPathDown // shut, all of them
	}
	return nil, ErrUnknownPath
}

// connected is what became of one TCP connect.
type connected struct {
	target
	conn *net.TCPConn
	err  error
}

// race connects to the targets, each with its head start, and shakes hands
// with one at a time in the order they answered: the peer sees a second
// stream only when the first came to nothing.
func (n *Net) race(ctx context.Context, node, purpose string, targets []target) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan connected, len(targets))
	started, open := 0, 0
	start := func() {
		t := targets[started]
		started, open = started+1, open+1
		go func() { results <- n.connect(ctx, node, t) }()
	}
	defer func() { // what comes too late is closed before Dial returns
		cancel()
		for ; open > 0; open-- {
			if late := <-results; late.err == nil {
				closeConn(late.conn, n.log)
			}
		}
	}()
	headStart := time.NewTimer(n.cfg.Stagger)
	defer headStart.Stop()
	start()
	var errs []error
	for open > 0 || started < len(targets) {
		if open == 0 {
			start()
			headStart.Reset(n.cfg.Stagger)
		}
		select {
		case <-headStart.C:
			if started < len(targets) {
				start()
				headStart.Reset(n.cfg.Stagger)
			}
			continue
		case r := <-results:
			open--
			limit := n.cfg.HandshakeTimeout
			if open > 0 || started < len(targets) {
				limit = n.cfg.HandshakeTurn // small frames may pass there, and larger ones vanish
			}
			c, err := n.finish(ctx, r, node, purpose, limit)
			if err == nil {
				return c, nil
			}
			errs = append(errs, fmt.Errorf("path %s (%s): %w", r.path, r.address, err))
			n.log.Debug("dial failed", zap.String("peer", node), zap.String("path", r.path), zap.String("purpose", purpose), zap.Error(err))
		}
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return nil, errors.Join(errs...)
}

// connect opens TCP from this node's own address on the path, so that the
// kernel's routes cannot send it over another cable.
func (n *Net) connect(ctx context.Context, node string, t target) connected {
	fail := func(err error) connected { return connected{target: t, err: err} }
	ctx, done := n.begin(ctx, node, t.path)
	defer done()
	address, err := endpoint(t.address)
	if err != nil {
		return fail(err)
	}
	dialer := net.Dialer{Timeout: n.cfg.DialTimeout, KeepAlive: -1}
	if t.source != "" {
		source, err := endpoint(t.source)
		if err != nil {
			return fail(err)
		}
		if host, _, err := net.SplitHostPort(source); err == nil && net.ParseIP(host) != nil {
			dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(host)}
		}
	}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, ErrPathDown) {
			err = cause
		}
		return fail(err)
	}
	tcp := conn.(*net.TCPConn)
	if err := n.tune(tcp); err != nil {
		closeConn(tcp, n.log)
		return fail(err)
	}
	return connected{target: t, conn: tcp}
}

// finish shakes hands over a connection of the race, within a while.
func (n *Net) finish(ctx context.Context, r connected, node, purpose string, limit time.Duration) (*Conn, error) {
	if r.err != nil {
		return nil, r.err
	}
	ctx, done := n.begin(ctx, node, r.path)
	defer done()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := n.introduce(ctx, r.conn, node, r.path, purpose)
	if err == nil {
		err = n.adopt(ctx, c)
	}
	if err != nil {
		closeConn(r.conn, n.log)
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		return nil, err
	}
	return c, nil
}

// begin enters an attempt in the register, for PathDown to cancel.
func (n *Net) begin(ctx context.Context, node, path string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	a := &attempt{pathKey: pathKey{node, path}, cancel: cancel}
	n.mu.Lock()
	n.mu.dials[a] = struct{}{}
	n.mu.Unlock()
	return ctx, func() {
		n.mu.Lock()
		delete(n.mu.dials, a)
		n.mu.Unlock()
		cancel(nil)
	}
}
