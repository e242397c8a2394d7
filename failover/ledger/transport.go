package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// streamLayer is raft's network: node names are addresses.
type streamLayer struct {
	l      *Ledger
	accept chan net.Conn
	done   chan struct{}
	once   sync.Once
	ctx    context.Context // ends with the layer: nothing waits for an absent peer
	cancel context.CancelFunc

	mu    sync.Mutex
	conns map[net.Conn]string // and to or from whom
}

type nodeAddr string

func (a nodeAddr) Network() string { return "hapair" }
func (a nodeAddr) String() string  { return string(a) }

func newStreamLayer(l *Ledger) *streamLayer {
	s := &streamLayer{l: l, accept: make(chan net.Conn), done: make(chan struct{}), conns: map[net.Conn]string{}}
	s.ctx, s.cancel = context.WithCancel(l.ctx)
	return s
}

// tracked is a connection that the layer can close when raft has forgotten it.
type tracked struct {
	net.Conn
	s    *streamLayer
	peer nodeAddr
}

func (t *tracked) Close() error {
	t.s.mu.Lock()
	delete(t.s.conns, t.Conn)
	t.s.mu.Unlock()
	return t.Conn.Close()
}

func (t *tracked) RemoteAddr() net.Addr { return t.peer }

// track returns nil, the connection closed, when the layer is.
func (s *streamLayer) track(c net.Conn, peer string) net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done:
		c.Close() //nolint:errcheck // never used
		return nil
	default:
	}
	s.conns[c] = peer
	return &tracked{c, s, nodeAddr(peer)}
}

// Dial implements raft.StreamLayer.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	c, err := s.l.dial(ctx, string(address), PurposeRaft)
	if err != nil {
		return nil, err
	}
	t := s.track(c, string(address))
	if t == nil {
		return nil, net.ErrClosed
	}
	return t, nil
}

// take hands an accepted, greeted stream to raft.
func (s *streamLayer) take(node string, c net.Conn) {
	t := s.track(c, node)
	if t == nil {
		return
	}
	select {
	case s.accept <- t:
	case <-s.done:
		t.Close() //nolint:errcheck // never used
	}
}

// Accept implements net.Listener.
func (s *streamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-s.accept:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener and closes every connection with it.
func (s *streamLayer) Close() error {
	s.once.Do(func() { close(s.done) })
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close() //nolint:errcheck // raft is going away; nothing is left to learn
	}
	clear(s.conns)
	return nil
}

// cut breaks every connection with a node; raft closes them.
func (s *streamLayer) cut(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, peer := range s.conns {
		if peer == node {
			c.Close() //nolint:errcheck // it is closed again by its user
		}
	}
}

// Addr implements net.Listener.
func (s *streamLayer) Addr() net.Addr { return nodeAddr(s.l.cfg.Self) }

// transport is raft's, with what raft does not do: a witness does not lead (but
// see rescueLog), and a leader whose disk hangs falls silent so that another may.
type transport struct {
	*raft.NetworkTransport
	l     *Ledger
	layer *streamLayer
	rpcs  <-chan raft.RPC // through the sieve
}

// peerPoll is how often a wait for an absent peer looks whether this node
// still leads.
const peerPoll = 50 * time.Millisecond

var (
	errWitness      = errors.New("a witness does not lead")
	errTransferring = errors.New("the leadership is being handed over")
	errNoPeer       = errors.New("that node is no member any more")
	errNotLeading   = errors.New("this node leads no more")
	errBelowFloor   = errors.New("others know more than this node, which has forgotten: not running")
	errStalled      = errors.New("the ledger's disk does not answer: not leading")
)

func newTransport(l *Ledger, layer *streamLayer) *transport {
	t := &transport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: 3, MaxRPCsInFlight: 1,
		Timeout: 2 * l.cfg.Timing.Heartbeat, Logger: l.raftLog,
	}), l, layer, nil}
	from, to := t.NetworkTransport.Consumer(), make(chan raft.RPC)
	t.rpcs = to
	l.wg.Go(func() { t.sieve(from, to) })
	return t
}

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.l.quietWitness() {
		return errWitness
	}
	if d := t.l.store.Stalled(); d > t.l.cfg.Timing.DiskStall {
		t.l.stalled(d)
		return fmt.Errorf("%w for %v", errStalled, d)
	}
	if err := t.awaitPeer(string(target)); err != nil {
		return err
	}
	return t.NetworkTransport.AppendEntries(id, target, args, resp)
}

// awaitPeer waits until the target answers the lease protocol, which asks it
// several times a second. Left to itself raft tries an absent peer ever more
// seldom, and lets one that came back wait up to ten seconds for the log; all
// that time it cannot be counted for a commit. Waiting ends with the leadership,
// and when that is to be handed over: raft's transfer waits for this peer's
// replication without a limit of its own, and refuses every command meanwhile.
func (t *transport) awaitPeer(node string) error {
	p := t.l.peer(node)
	if p == nil {
		return nil
	}
	for {
		select {
		case <-p.returned():
			return nil
		case <-t.layer.ctx.Done():
			return net.ErrClosed
		case <-p.ctx.Done(): // a witness that has gone; should it come again, it is another peer
			return errNoPeer
		case <-time.After(peerPoll):
		}
		if t.l.transferring.Load() > 0 {
			return errTransferring
		}
		if g := t.l.group(); g == nil || g.raft.State() != raft.Leader {
			return errNotLeading
		}
	}
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.mayRun(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestVote(id, target, args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.mayRun(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestPreVote(id, target, args, resp)
}
