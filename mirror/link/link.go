// Package link carries the mirror's messages between the two nodes of a
// resource: one session at a time over two streams, one for data, one that
// tells whether the other end is alive.
//
// DESIGN.md lists the goroutines, what wakes them, and who may touch what.
package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"hapair/mirror/wire"

	"go.uber.org/zap"
)

// Why a session ended, or none came about. Match them with errors.Is; what the
// network or the wire format had to say is wrapped beside.
var (
	ErrSilent       = errors.New("nothing was heard from the peer")
	ErrPeerClosed   = errors.New("peer closed the session")
	ErrReplaced     = errors.New("peer began a new session")
	ErrRefusing     = errors.New("this node refused the session")
	ErrDisconnected = errors.New("disconnected by wish")
	ErrStopped      = errors.New("link stopped")
	ErrQueueFull    = errors.New("peer does not take its messages fast enough")
	ErrProtocol     = errors.New("peer does not keep to the link protocol")
)

// Bounds and times, all of them. Memory: QueueBytes of borrowed payload (never
// copied), MaxQueued messages, and per stream the buffers named here.
const (
	// MaxQueued bounds the messages that wait for the socket.
	MaxQueued = 1 << 16
	// DefaultQueueBytes bounds their bytes.
	DefaultQueueBytes = 128 << 20

	readBufferBytes = 256 << 10
	copyBufferBytes = 64 << 10 // mode without writev: encrypted streams
	batchFrames     = 128      // frames in one system call
	// directBytesMax is how much Flush writes itself: copying it into the
	// socket must not keep its caller from work that could go side by side.
	directBytesMax = 256 << 10
	// directRoundsMax is how often it does so in a row, for others.
	directRoundsMax = 4
	pendingMax      = 4 // streams that wait for their other half

	pairTimeout = 2 * time.Second        // until a session that was offered is taken
	halfTimeout = 5 * time.Second        // until the other stream has come
	lingerTime  = 250 * time.Millisecond // for a Refuse to arrive
	// DefaultResume is how long a session may be without streams before it ends.
	// Answers of a Primary wait that long for a peer that died.
	DefaultResume = 300 * time.Millisecond
	backoffMin    = 10 * time.Millisecond
	backoffMax    = time.Second
	steadyAfter   = time.Second // a session this old ends without back-off
)

// Needs is what a link asks of the cluster.
type Needs interface {
	// Dial opens an authenticated stream to the peer over a path, or with "" over
	// the best one that answers, and says which. If the connection has a method Raw() *net.TCPConn
	// that returns one, frames go out by writev; if it has a method Below() syscall.Conn, or is one
	// itself, that is the socket below the stream, by which a dead flow is found.
	Dial(ctx context.Context, path, purpose string) (conn net.Conn, over string, err error)
}

// Sink is whom a link talks to. Its calls never overlap, not even those of two
// sessions: Up, then Messages, Drained and Moved, then Down, exactly one per Up. They
// may call Send, Flush, Drop, Connect and Disconnect, not Stop.
type Sink interface {
	// Up says that a session stands; numbers grow and are this node's own.
	Up(session uint64, path string)
	// Message hands a message over. m is the link's and released when Message
	// returns; to keep Data, take m.Buffer and set it to nil.
	Message(session uint64, m *wire.Message)
	// Drained says that no further message is at hand: the link is about to
	// read from the network.
	Drained()
	// Moved says that the session has gone on over another strand, because the one
	// before broke; nothing of it is lost. The paths may be the same.
	Moved(session uint64, from, to string, because error)
	// Down says that the session is over and that the link touches no buffer
	// handed to Send in it any more. Its streams broke so long ago: all that time
	// the link has tried to go on.
	Down(session uint64, reason error, ago time.Duration)
}

// Config is what New needs.
type Config struct {
	Resource   string
	Self, Peer string // nodes; the one whose name is lower dials
	Needs      Needs
	Sink       Sink
	Logger     *zap.Logger

	PingInterval time.Duration // default 100 ms
	Silence      time.Duration // default 500 ms; at least two PingIntervals
	QueueBytes   int64         // default DefaultQueueBytes; more in the queue ends the session
	Resume       time.Duration // how long a session may be without streams; default DefaultResume
	Spread       bool          // go over several paths at once, with a peer that does, too; see Spread
}

// Link keeps a session with the peer, as long as it is wished for. Its methods
// are safe for concurrent use.
type Link struct {
	cfg    Config
	log    *zap.Logger
	begun  time.Time // all times are counted from here, monotonic
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // run, and one per stream being paired

	mu struct {
		sync.Mutex
		started, stopped bool
		wanted           bool
		session          *session
		last             uint64                  // number of the newest session
		attempt          context.CancelCauseFunc // ends the dial under way
		pending          map[uint64]*half        // by nonce; accepting side
		next             *pair                   // complete, not begun yet
		paths            map[string]*counters
		hold             hold // of lanes
	}
	wake chan struct{} // something in mu changed that run waits for; capacity 1
}

// New returns a link at rest; Start sets it going. It panics when Needs or
// Sink is missing or the two nodes have one name, which is a fault of the caller.
func New(cfg Config) *Link {
	if cfg.Needs == nil || cfg.Sink == nil || cfg.Self == cfg.Peer {
		panic(fmt.Sprintf("link: resource %q between %q and %q without needs, sink or two nodes", cfg.Resource, cfg.Self, cfg.Peer))
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.PingInterval <= 0 {
		cfg.PingInterval = 100 * time.Millisecond
	}
	if cfg.Silence <= 0 {
		cfg.Silence = 500 * time.Millisecond
	}
	cfg.Silence = max(cfg.Silence, 2*cfg.PingInterval)
	if cfg.Resume <= 0 {
		cfg.Resume = DefaultResume
	}
	if cfg.QueueBytes <= 0 {
		cfg.QueueBytes = DefaultQueueBytes
	}
	l := &Link{cfg: cfg, begun: time.Now(), wake: make(chan struct{}, 1)}
	l.log = cfg.Logger.With(zap.String("resource", cfg.Resource), zap.String("peer", cfg.Peer))
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.mu.pending = map[uint64]*half{}
	l.mu.paths = map[string]*counters{}
	return l
}

// Purposes of the two streams of a resource.
const (
	purposePrefix  = "mirror/"
	dataSuffix     = "/data"
	controlSuffix  = "/control"
	resourceMaxLen = wire.MaxNameBytes
)

// DataPurpose is the purpose of a resource's data stream.
func DataPurpose(resource string) string { return purposePrefix + resource + dataSuffix }

// ControlPurpose is the purpose of a resource's control stream.
func ControlPurpose(resource string) string { return purposePrefix + resource + controlSuffix }

// ResourceOf returns the resource a purpose belongs to.
func ResourceOf(purpose string) (resource string, ok bool) {
	rest, ok := strings.CutPrefix(purpose, purposePrefix)
	if !ok {
		return "", false
	}
	resource, ok = strings.CutSuffix(rest, dataSuffix)
	if !ok {
		resource, ok = strings.CutSuffix(rest, controlSuffix)
	}
	return resource, ok && resource != "" && len(resource) <= resourceMaxLen && !strings.Contains(resource, "/")
}

// Start sets the link going: from now on it is connected whenever it can be.
func (l *Link) Start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.started || l.mu.stopped {
		return
	}
	l.mu.started, l.mu.wanted = true, true
	l.wg.Add(1)
	go l.run()
}

// Stop ends the session and waits, until ctx ends, for everything the link
// started. The last Down has been delivered when it returns nil.
func (l *Link) Stop(ctx context.Context) error {
	l.mu.Lock()
	l.mu.stopped = true
	l.mu.Unlock()
	l.cancel(ErrStopped)
	l.disconnect(ErrStopped)
	done := make(chan struct{})
	go func() { l.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("link of %s: stop: %w", l.cfg.Resource, ctx.Err())
	}
}

// Connect wishes for a session, and tries at once.
func (l *Link) Connect() {
	l.mu.Lock()
	l.mu.wanted = l.mu.started && !l.mu.stopped
	l.mu.Unlock()
	l.kick()
}

// Disconnect ends the session, if there is one, and makes and takes none until
// Connect.
func (l *Link) Disconnect() { l.disconnect(ErrDisconnected) }

// Refuse is Disconnect for another reason than somebody's wish.
func (l *Link) Refuse(why error) { l.disconnect(why) }

func (l *Link) disconnect(reason error) {
	l.mu.Lock()
	l.mu.wanted = false
	s, attempt, next := l.mu.session, l.mu.attempt, l.mu.next
	l.mu.next = nil
	pending := l.mu.pending
	l.mu.pending = map[uint64]*half{}
	l.mu.Unlock()
	if attempt != nil {
		attempt(reason)
	}
	if s != nil {
		s.drop(reason)
	}
	if next != nil {
		next.close(l.log)
	}
	for _, h := range pending {
		h.timer.Stop()
		closeConn(h.conn, l.log)
	}
	l.kick()
}

func (l *Link) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Send queues a message of a session; Flush sends it. It never waits. Messages
// go out in the order of the calls; one of a session that is over is dropped
// silently. m.Data is borrowed until the peer acknowledges the message or the
// session's Down. After a Refuse nothing more is sent, and the link ends the
// session when it has gone out.
func (l *Link) Send(session uint64, m wire.Message) {
	if s := l.live(); s != nil && s.id == session {
		s.send(&m)
	}
}

// Flush sends what is queued, or sees that it is sent. It never waits for the
// network.
func (l *Link) Flush() {
	if s := l.live(); s != nil {
		s.flush()
	}
}

// Drop ends a session; Down follows with the reason. A Refuse that was sent
// before is given a moment to arrive.
func (l *Link) Drop(session uint64, reason error) {
	if s := l.live(); s != nil && s.id == session {
		s.drop(reason)
	}
}

// live is the session there is, nil when there is none.
func (l *Link) live() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.session
}

func (l *Link) now() time.Duration { return time.Since(l.begun) }

func closeConn(conn net.Conn, log *zap.Logger) {
	if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		log.Debug("closing a stream failed", zap.Error(err))
	}
}
