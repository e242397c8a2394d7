package deadman

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Config of a Guard.
type Config struct {
	Program   string   // becomes the helper when its first argument is Command
	Lock      string   // file that the helpers lock, one at a time
	Resources []string // in any order, at most slots of them
	Log       *zap.Logger
}

// Guard is the agent's side. It is safe for concurrent use.
type Guard struct {
	cfg    Config
	page   *page
	log    *zap.Logger
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	held   []holding
	helper *helper // nil while there is none
}

// helper is one life of the helper process.
type helper struct {
	cmd  *exec.Cmd
	conn net.Conn
	in   *bufio.Reader
}

const (
	startEvery = time.Second     // at most, when helpers keep dying
	answerIn   = 5 * time.Second // an order at most; a new helper waits for the last one
)

// Start starts the helper, and keeps one until Close.
func Start(cfg Config) (*Guard, error) {
	if len(cfg.Resources) > slots {
		return nil, fmt.Errorf("start the deadman: %d resources, at most %d", len(cfg.Resources), slots)
	}
	p, err := newPage()
	if err != nil {
		return nil, err
	}
	g := &Guard{cfg: cfg, page: p, log: cfg.Log, ended: make(chan struct{})}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := g.launch(); err != nil {
		g.cancel()
		return nil, errors.Join(err, p.close())
	}
	go g.keep()
	return g, nil
}

// launch starts a helper and tells it all that is held.
func (g *Guard) launch() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start the deadman: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "deadman"), os.NewFile(uintptr(fds[1]), "orders")
	defer ours.Close()   //nolint:errcheck // conn is a copy
	defer theirs.Close() //nolint:errcheck // the helper has it
	conn, err := net.FileConn(ours)
	if err != nil {
		return fmt.Errorf("start the deadman: %w", err)
	}
	cmd := exec.Command(g.cfg.Program, Command, g.cfg.Lock)
	cmd.ExtraFiles, cmd.Stderr, cmd.Dir = []*os.File{theirs, g.page.file}, os.Stderr, "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true} // what a terminal or a supervisor sends to the group of the agent is not for it
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start the deadman: %w", err), conn.Close())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.helper = &helper{cmd, conn, bufio.NewReader(conn)}
	for i := range g.held {
		if err := g.order(order{Hold: &g.held[i]}); err != nil {
			g.log.Error("the deadman does not hold an address", zap.Error(err))
			return nil // it is killed, and so much for this one
		}
	}
	return nil
}

// keep starts another helper whenever one has ended.
func (g *Guard) keep() {
	defer close(g.ended)
	for {
		g.mu.Lock()
		h := g.helper
		g.mu.Unlock()
		if h != nil {
			err := h.cmd.Wait()
			g.mu.Lock()
			g.helper = nil
			g.mu.Unlock()
			_ = h.conn.Close() // its other end is gone
			if g.ctx.Err() != nil {
				return
			}
			g.log.Error("the deadman has ended; another is started", zap.Error(err))
		}
		select {
		case <-g.ctx.Done():
			return
		case <-time.After(startEvery):
		}
		if err := g.launch(); err != nil {
			g.log.Error("no deadman: addresses stay when this agent dies", zap.Error(err))
		}
	}
}

// tell gives one order and waits until it is carried out.
func (h *helper) tell(o order) error {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("order to the deadman: %w", err)
	}
	if err := h.conn.SetDeadline(time.Now().Add(answerIn)); err != nil {
		return fmt.Errorf("order to the deadman: %w", err)
	}
	if _, err := h.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("order to the deadman: %w", err)
	}
	if _, err := h.in.ReadBytes('\n'); err != nil {
		return fmt.Errorf("the deadman's answer: %w", err)
	}
	return nil
}

// ErrNone is returned while there is no helper.
var ErrNone = errors.New("no deadman runs")

// Hold has the address taken away when the lease of its resource runs out. It
// returns when the helper knows, at the latest after five seconds; the address
// may be taken only then. What it was told, a later helper is told as well,
// also after an error.
func (g *Guard) Hold(h Held) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	x, err := g.holding(h)
	if err != nil {
		return err
	}
	if !slices.Contains(g.held, x) {
		g.held = append(g.held, x)
	}
	return g.order(order{Hold: &x})
}

// Release ends that, once the address is not on the node any more.
func (g *Guard) Release(h Held) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	x, err := g.holding(h)
	if err != nil {
		return err
	}
	g.held = slices.DeleteFunc(g.held, func(y holding) bool { return x == y })
	return g.order(order{Release: &x})
}

func (g *Guard) order(o order) error {
	if g.helper == nil {
		return ErrNone
	}
	err := g.helper.tell(o)
	if err != nil {
		err = errors.Join(err, g.helper.cmd.Process.Kill()) // the next one is told everything
	}
	return err
}

func (g *Guard) holding(h Held) (holding, error) {
	slot := slices.Index(g.cfg.Resources, h.Resource)
	if slot < 0 {
		return holding{}, fmt.Errorf("the deadman knows no resource %q", h.Resource)
	}
	return holding{h, slot}, nil
}

// Renew says until when a resource may be served, on CLOCK_BOOTTIME. It never
// waits. A lease that is lost is not told: its time runs out.
func (g *Guard) Renew(resource string, until time.Duration) {
	if slot := slices.Index(g.cfg.Resources, resource); slot >= 0 && until > 0 {
		g.page.set(slot, until)
	}
}

// Close lets the helper go, and waits for its end until ctx ends: what is still
// held it takes away when the time is up, whether or not it is waited for.
func (g *Guard) Close(ctx context.Context) error {
	g.cancel()
	g.mu.Lock()
	if g.helper != nil {
		_ = g.helper.conn.Close() // all that it was told was answered
	}
	g.mu.Unlock()
	select {
	case <-g.ended:
		return g.page.close()
	case <-ctx.Done():
		return fmt.Errorf("wait for the deadman: %w", context.Cause(ctx))
	}
}
