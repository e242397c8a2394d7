package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/front/holder"
)

// Config names an export.
type Config struct {
	// Socket is the path of the unix socket; its directory is made, for root
	// alone, when missing.
	Socket string
	// Name is the export's name; clients may also ask for the empty one.
	Name string
	Log  *zap.Logger // nil: no log
}

// Export is an NBD server for one volume. Its methods may be called
// concurrently.
type Export struct {
	config Config
	log    *zap.Logger

	mu struct {
		sync.Mutex
		listener *net.UnixListener
		serving  map[*conn]bool         // in the transmission phase; true: the client is still there
		greeting map[*net.UnixConn]bool // in negotiation
	}
	handler  block.Handler
	geometry atomic.Pointer[block.Geometry] // what clients that connect are told
	running  sync.WaitGroup                 // the accept loop and all connections
}

// New makes an export that is not offered yet.
func New(c Config) *Export {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return &Export{config: c, log: c.Log}
}

// Kind is "export".
func (*Export) Kind() string { return "export" }

// Start offers the volume and returns its NBD URI. A socket left by a process
// that is gone is replaced; one that answers is an error.
func (e *Export) Start(_ context.Context, h block.Handler, g block.Geometry) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.listener != nil {
		return "", fmt.Errorf("export %s: already started", e.config.Socket)
	}
	if g.LogicalBlockBytes < block.SectorBytes || g.LogicalBlockBytes > 4096 || g.SizeBytes <= 0 {
		return "", fmt.Errorf("export %s: geometry of %d bytes in blocks of %d: %w", e.config.Socket, g.SizeBytes, g.LogicalBlockBytes, block.ErrRange)
	}
	l, err := listen(e.config.Socket)
	if err != nil {
		return "", fmt.Errorf("export %s: %w", e.config.Socket, err)
	}
	e.handler = h
	e.geometry.Store(&g)
	e.mu.listener = l
	e.mu.serving = map[*conn]bool{}
	e.mu.greeting = map[*net.UnixConn]bool{}
	e.running.Add(1)
	go e.accept(l)
	return e.URI(), nil
}

// URI is what a client opens.
func (e *Export) URI() string {
	return "nbd+unix:///?socket=" + url.QueryEscape(e.config.Socket)
}

// Resize counts for clients that connect from now on: NBD fixes the size when a
// client does. Who has connected goes on with the size it was told.
func (e *Export) Resize(_ context.Context, g block.Geometry) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.listener == nil {
		return fmt.Errorf("export %s: resize: %w", e.config.Socket, block.ErrClosed)
	}
	e.geometry.Store(&g)
	return nil
}

// listen makes a socket only root may open. The mode is set between bind and
// listen, when nobody can connect yet.
func listen(path string) (*net.UnixListener, error) {
	if len(path) >= len(unix.RawSockaddrUnix{}.Path) {
		return nil, fmt.Errorf("socket path of %d bytes, the kernel takes %d", len(path), len(unix.RawSockaddrUnix{}.Path)-1)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() //nolint:errcheck // FileListener works on a duplicate
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("close the socket to others: %w", err)
	}
	if err := unix.Listen(fd, connectionsMax); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l.(*net.UnixListener), nil
}

// clearStale removes a socket nobody listens on.
func clearStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at an earlier socket: %w", err)
	}
	if st.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there and is no socket (%s): it is left alone", path, st.Mode().Type())
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("another process serves %s", path), c.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("find out who serves an earlier socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove an earlier socket: %w", err)
	}
	return nil
}

// accept is a goroutine, woken by clients and by the listener's close.
func (e *Export) accept(l *net.UnixListener) {
	defer e.running.Done()
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors or memory; clients keep waiting in the backlog.
			e.log.Error("cannot accept an NBD client", zap.Error(err))
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if !e.admit(c) {
			if err := c.Close(); err != nil {
				e.log.Warn("cannot turn an NBD client away", zap.Error(err))
			}
			continue
		}
		go e.client(c)
	}
}

// admit counts a client in, unless the export is stopping or full.
func (e *Export) admit(c *net.UnixConn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.listener == nil {
		return false
	}
	if n := len(e.mu.serving) + len(e.mu.greeting); n >= connectionsMax {
		e.log.Warn("NBD client turned away: too many connections", zap.Int("connections", n), zap.Int("limit", connectionsMax))
		return false
	}
	e.mu.greeting[c] = true
	e.running.Add(1)
	return true
}

// client is a goroutine for one connection from handshake to end.
func (e *Export) client(nc *net.UnixConn) {
	defer e.running.Done()
	peer := peerOf(nc)
	log := e.log.With(zap.Int("client", peer.PID), zap.String("command", peer.Command))
	c, err := e.greet(nc, peer, log)
	if err != nil {
		if !errors.Is(err, errGone) {
			log.Info("NBD handshake ended", zap.Error(err))
		}
		return
	}
	log.Info("NBD client connected", zap.Bool("structured", c.session.structured))
	err = c.serve()
	e.mu.Lock()
	delete(e.mu.serving, c)
	cerr := c.sock.close() // with the lock held: Abort shuts down what is on the list
	e.mu.Unlock()
	if cerr != nil {
		log.Warn("NBD client's socket", zap.Error(cerr))
	}
	if ended(err) {
		log.Info("NBD client disconnected")
	} else {
		log.Warn("NBD client cut off", zap.Error(err))
	}
}

// greet negotiates and moves the client to the transmission phase.
func (e *Export) greet(nc *net.UnixConn, peer holder.Holder, log *zap.Logger) (*conn, error) {
	g := *e.geometry.Load()
	ses, err := e.handshake(nc, g)
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.mu.greeting, nc)
	if err == nil && e.mu.listener == nil {
		err = block.ErrClosed
	}
	if err != nil {
		if cerr := nc.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
		return nil, err
	}
	s, err := newSocket(nc)
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	c, err := newConn(s, e.handler, g, ses, peer, log)
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	c.onLeft = func() { e.left(c) }
	e.mu.serving[c] = true
	return c, nil
}

func (e *Export) handshake(nc *net.UnixConn, g block.Geometry) (session, error) {
	if err := nc.SetDeadline(time.Now().Add(negotiationTimeout)); err != nil {
		return session{}, fmt.Errorf("limit the handshake's time: %w", err)
	}
	ses, err := negotiate(nc, e.config.Name, g)
	if err != nil {
		return session{}, err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return session{}, fmt.Errorf("lift the handshake's limit: %w", err)
	}
	return ses, nil
}

// left notes that a client has gone, though its requests may still be in
// flight: it holds the device no more.
func (e *Export) left(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.mu.serving[c]; ok {
		e.mu.serving[c] = false
	}
}

// peerOf names the process at the other end.
func peerOf(c *net.UnixConn) holder.Holder {
	raw, err := c.SyscallConn()
	if err != nil {
		return holder.Holder{Command: "unknown client"}
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || cerr != nil || cred.Pid == 0 {
		return holder.Holder{Command: "unknown client"}
	}
	return holder.Process(int(cred.Pid))
}
