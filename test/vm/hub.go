package vm

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// hub is one network: whatever a machine sends reaches all others whose cable is
// plugged in. QEMU sends and takes frames as datagrams on Unix sockets.
type hub struct {
	dir   string
	conn  *net.UnixConn
	mu    sync.Mutex
	ports map[string]bool // by the socket of the machine: its cable is plugged in
	ended chan struct{}
}

const frameMax = 64 << 10

func newHub(dir string) (*hub, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "hub"), Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	h := &hub{dir: dir, conn: c, ports: map[string]bool{}, ended: make(chan struct{})}
	go h.carry()
	return h, nil
}

// port is where a machine takes frames.
func (h *hub) port(machine string) string { return filepath.Join(h.dir, machine) }

// plug pulls a machine's cable, or plugs it in.
func (h *hub) plug(machine string, in bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ports[h.port(machine)] = in
}

// carry ends when the hub is closed.
func (h *hub) carry() {
	defer close(h.ended)
	frame := make([]byte, frameMax)
	for {
		n, from, err := h.conn.ReadFromUnix(frame)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || from == nil {
			continue // one frame less
		}
		h.mu.Lock()
		if h.ports[from.Name] {
			for to, in := range h.ports {
				if in && to != from.Name {
					_, _ = h.conn.WriteToUnix(frame[:n], &net.UnixAddr{Name: to, Net: "unixgram"}) // a machine that is off hears nothing
				}
			}
		}
		h.mu.Unlock()
	}
}

func (h *hub) close() error {
	err := h.conn.Close()
	<-h.ended
	return err
}
