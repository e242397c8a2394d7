package peering

import (
	"context"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"
)

// secure makes conn a stream of proven peers; it is done within the deadline
// of ctx, or conn is to be closed.
func (n *Net) secure(ctx context.Context, conn net.Conn, want string) (*secured, error) {
	if n.cfg.Mode == TLS {
		return n.secureTLS(ctx, conn, want)
	}
	return n.securePSK(conn, want != "")
}

// bounded ties conn to ctx: its end or deadline interrupts every read and
// write. The returned function unties it, and reports whether conn is still
// good for use.
func bounded(ctx context.Context, conn net.Conn) (func() error, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() {
		// A failure means that conn is closed, which is as good.
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	return func() error {
		if !stop() {
			return context.Cause(ctx)
		}
		return conn.SetDeadline(time.Time{})
	}, nil
}

// introduce is the dialing side: prove, say hello, hear the answer.
func (n *Net) introduce(ctx context.Context, conn *net.TCPConn, node, path, purpose string) (*Conn, error) {
	untie, err := bounded(ctx, conn)
	if err != nil {
		return nil, err
	}
	s, err := n.secure(ctx, conn, node)
	if err != nil {
		return nil, err
	}
	own := n.cfg.Incarnation()
	h := hello{min: MinVersion, max: MaxVersion, incarnation: own, cluster: n.cfg.Cluster, from: n.cfg.Node, to: node, path: path, purpose: purpose, machine: n.machine()}
	if err := s.send(h.append(nil)); err != nil {
		return nil, fmt.Errorf("send hello: %w", err)
	}
	blob, err := s.receive()
	if err != nil {
		return nil, fmt.Errorf("no answer to the hello (the peer logs why): %w: %w", err, ErrAuthentication)
	}
	a, err := parseAnswer(blob)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if refusal := judgeAnswer(a, own, node, n.ordered(node, purpose), n.stranger(node, a.machine, purpose)); refusal != nil {
		refusal.Path, refusal.Purpose, refusal.Dialed = path, purpose, true
		n.tell(refusal)
		return nil, refusal
	}
	if err := untie(); err != nil {
		return nil, err
	}
	return &Conn{Conn: s.Conn, Node: node, Path: path, Purpose: purpose, Incarnation: a.incarnation, Machine: a.machine, net: n, raw: conn}, nil
}

// judgeAnswer looks at the answer with the dialing node's own eyes: an old
// node may accept what this one must not use. ordered: a higher incarnation is
// the later one. stranger: why the machine that answered is not node.
func judgeAnswer(a *answer, own uint64, node string, ordered bool, stranger error) *RefusedError {
	e := &RefusedError{Code: a.code, Text: a.text, Node: a.node, PeerIncarnation: a.incarnation}
	switch {
	case a.code != Accepted:
	case a.node != node:
		e.Code, e.Text = WrongNode, fmt.Sprintf("reached node %q, wanted %q", a.node, node)
	case stranger != nil:
		e.Code, e.Text = Replaced, stranger.Error()
	case a.incarnation < own && ordered:
		e.Code, e.Text = PeerIncarnation, fmt.Sprintf("peer is of incarnation %d, this node of %d", a.incarnation, own)
	case a.incarnation > own && ordered:
		e.Code, e.Text = LowerIncarnation, fmt.Sprintf("peer is of incarnation %d, this node of %d", a.incarnation, own)
	default:
		return nil
	}
	return e
}

// exempt says whether a purpose is one that a node left behind still needs.
// The ledger judges incarnations itself, and is how a node left behind rejoins;
// whether a path carries frames is no matter of incarnations.
func exempt(purpose string) bool {
	return ofLedger(purpose) || hasPrefix(purpose, "path")
}

// ofLedger says whether a purpose is one of those that the ledger judges itself.
func ofLedger(purpose string) bool {
	return hasPrefix(purpose, "join") || hasPrefix(purpose, "rejoin") || hasPrefix(purpose, "raft") || hasPrefix(purpose, "ledger")
}

// ordered says whether the lower of two incarnations is left behind and has to
// rejoin before it is of use for a purpose. Two that were founded apart stand side
// by side, whatever their numbers: only the data tell what each of them has.
func (n *Net) ordered(node, purpose string) bool {
	return !exempt(purpose) && (n.cfg.Apart == nil || !n.cfg.Apart(node))
}

func (n *Net) machine() string {
	if n.cfg.Machine == nil {
		return ""
	}
	return n.cfg.Machine()
}

// stranger says why a machine is not talked to for a purpose. The ledger hears every
// one: there a machine gets its name, and learns that it has lost it.
func (n *Net) stranger(node, machine, purpose string) error {
	if n.cfg.Stranger == nil || ofLedger(purpose) {
		return nil
	}
	return n.cfg.Stranger(node, machine)
}

func (n *Net) acceptLoop(l net.Listener, path string) {
	defer n.wg.Done()
	guests := make(chan struct{}, MaxHandshakes)
	pause := time.Duration(0)
	for {
		conn, err := l.Accept()
		if n.ctx.Err() != nil {
			if err == nil {
				closeConn(conn, n.log)
			}
			return
		}
		if err != nil { // out of descriptors, or a connection gone before it was taken
			pause = min(pause*2+5*time.Millisecond, time.Second)
			n.log.Warn("accept failed", zap.String("path", path), zap.Duration("pause", pause), zap.Error(err))
			select {
			case <-n.ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		select {
		case guests <- struct{}{}:
			n.wg.Add(1)
			go n.welcome(conn.(*net.TCPConn), path, guests)
		default:
			n.log.Warn("stream refused", zap.String("path", path), zap.Stringer("from", conn.RemoteAddr()),
				zap.String("because", fmt.Sprintf("%d handshakes are under way, the limit", MaxHandshakes)))
			closeConn(conn, n.log)
		}
	}
}

func closeConn(conn net.Conn, log *zap.Logger) {
	if err := conn.Close(); err != nil {
		log.Debug("closing a connection failed", zap.Error(err))
	}
}

// welcome is the accepting side: a goroutine per stream, which becomes the
// handler's.
func (n *Net) welcome(conn *net.TCPConn, path string, guests <-chan struct{}) {
	defer n.wg.Done()
	c, fn, err := n.receive(conn, path)
	<-guests
	if err != nil {
		closeConn(conn, n.log)
		if n.ctx.Err() == nil {
			n.log.Warn("stream refused", zap.String("path", path), zap.Stringer("from", conn.RemoteAddr()), zap.Error(err))
		}
		return
	}
	n.log.Debug("stream accepted", zap.String("peer", c.Node), zap.String("path", path), zap.String("purpose", c.Purpose))
	fn(c)
}

func (n *Net) receive(conn *net.TCPConn, path string) (*Conn, func(*Conn), error) {
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.HandshakeTimeout)
	defer cancel()
	if err := n.tune(conn); err != nil {
		return nil, nil, err
	}
	untie, err := bounded(ctx, conn)
	if err != nil {
		return nil, nil, err
	}
	s, err := n.secure(ctx, conn, "")
	if err != nil {
		return nil, nil, err
	}
	blob, err := s.receive()
	if err != nil {
		return nil, nil, fmt.Errorf("read hello: %w", err)
	}
	h, err := parseHello(blob)
	if err != nil {
		return nil, nil, fmt.Errorf("read hello: %w", err)
	}
	c := &Conn{Conn: s.Conn, Node: h.from, Path: path, Purpose: h.purpose, Incarnation: h.incarnation, Machine: h.machine, net: n, raw: conn, accepted: true}
	fn, err := n.reply(s, h, c)
	if err == nil {
		err = untie()
	}
	if err != nil {
		n.forget(c)
		return nil, nil, err
	}
	return c, fn, nil
}

// reply judges the hello and answers it; nil means that c is in the register
// and is the returned handler's.
func (n *Net) reply(s *secured, h *hello, c *Conn) (func(*Conn), error) {
	own := n.cfg.Incarnation()
	fn := n.handler(h.purpose)
	a := answer{version: min(h.max, MaxVersion), incarnation: own, node: n.cfg.Node, machine: n.machine()}
	a.code, a.text = n.judgeHello(h, s.peer, own, fn != nil)
	if a.code == Accepted {
		a.code, a.text = n.reserve(c)
	}
	if err := s.send(a.append(nil)); err != nil {
		return nil, fmt.Errorf("send answer to node %s: %w", h.from, err)
	}
	if a.code != Accepted {
		e := &RefusedError{Code: a.code, Text: a.text, Node: h.from, Path: c.Path, Purpose: h.purpose, PeerIncarnation: h.incarnation}
		n.tell(e)
		return nil, e
	}
	return fn, nil
}

// judgeHello decides about an authenticated peer, each refusal with its own sentence.
func (n *Net) judgeHello(h *hello, proven string, own uint64, handled bool) (Code, string) {
	n.mu.Lock()
	_, known := n.mu.nodes[h.from]
	n.mu.Unlock()
	stranger := n.stranger(h.from, h.machine, h.purpose)
	switch {
	case h.cluster != n.cfg.Cluster:
		return WrongCluster, fmt.Sprintf("node %s of cluster %q reached a node of cluster %q", h.from, h.cluster, n.cfg.Cluster)
	case h.to != n.cfg.Node:
		return WrongNode, fmt.Sprintf("node %s wanted node %q and reached %q: check the addresses", h.from, h.to, n.cfg.Node)
	case proven != "" && proven != h.from:
		return WrongNode, fmt.Sprintf("the certificate is that of node %q, the hello of %q", proven, h.from)
	case h.from == n.cfg.Node:
		return WrongNode, fmt.Sprintf("the peer calls itself %q, as this node does: two nodes have one name", h.from)
	case !known:
		return UnknownNode, fmt.Sprintf("node %q is not in the configuration of %q", h.from, n.cfg.Node)
	case h.min > MaxVersion || h.max < MinVersion:
		return NoVersion, fmt.Sprintf("peer speaks versions %d to %d, this node %d to %d", h.min, h.max, MinVersion, MaxVersion)
	case stranger != nil:
		return Replaced, stranger.Error()
	case h.incarnation < own && n.ordered(h.from, h.purpose):
		return LowerIncarnation, fmt.Sprintf("node %s is of incarnation %d, node %s of %d: it must rejoin", h.from, h.incarnation, n.cfg.Node, own)
	case h.incarnation > own && n.ordered(h.from, h.purpose):
		return PeerIncarnation, fmt.Sprintf("node %s is of incarnation %d, node %s of %d: the latter must rejoin", h.from, h.incarnation, n.cfg.Node, own)
	case !handled:
		return UnknownPurpose, fmt.Sprintf("nothing on node %s handles %q", n.cfg.Node, h.purpose)
	}
	return Accepted, ""
}

// reserve enters an accepted stream in the register, if there is room.
func (n *Net) reserve(c *Conn) (Code, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed {
		return Closing, fmt.Sprintf("node %s stops", n.cfg.Node)
	}
	if err := n.stranger(c.Node, c.Machine, c.Purpose); err != nil { // again: see CloseStrangers
		return Replaced, err.Error()
	}
	if n.isShut(c.Node, c.Path) {
		return Closing, fmt.Sprintf("path %s of node %s is shut for a drill", c.Path, n.cfg.Node)
	}
	if n.mu.accepted >= MaxConns {
		return Busy, fmt.Sprintf("node %s has %d streams, the limit", n.cfg.Node, MaxConns)
	}
	n.mu.accepted++
	n.mu.conns[c] = struct{}{}
	return Accepted, ""
}

func (n *Net) tell(e *RefusedError) {
	if n.cfg.Refused != nil {
		n.cfg.Refused(e)
	}
}
