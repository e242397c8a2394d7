package vm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hapair/test/lab"
	"hapair/test/script"
)

const (
	// outletsHost is this machine's loopback, as a data node sees it by its control card,
	// which no cable of a scenario is.
	outletsHost = "10.0.2.2"
	// outletsFile is the file of the password, in a data node.
	outletsFile = "/etc/hapair/outlets"
	// fenceProgram is the fence agent there: halab by another name.
	fenceProgram = "/bin/" + lab.FenceName

	headerTimeout = 10 * time.Second
)

// outlets are what switches the data nodes, served to them by Redfish as the boards of
// lab.Boards: off is a power cut, on a boot. It answers who knows a password that is of
// this lab.
type outlets struct {
	lab      *Lab
	password string
	port     string // on this machine's loopback
	handler  atomic.Pointer[http.Handler]
	server   *http.Server
	ended    chan struct{}  // closed when the server is
	asked    sync.WaitGroup // requests under way
	end      context.CancelFunc

	mu  sync.Mutex
	off []saidOff // oldest first
}

// saidOff is an answer that a node is off now, to who asked for that.
type saidOff struct {
	node    string
	at      time.Time
	already bool // it was before
}

// serveOutlets serves until close.
func serveOutlets(l *Lab) (*outlets, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &outlets{lab: l, password: rand.Text(), ended: make(chan struct{})}
	if _, o.port, err = net.SplitHostPort(listener.Addr().String()); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	var ctx context.Context
	ctx, o.end = context.WithCancel(context.Background())
	o.answer()
	o.server = &http.Server{Handler: http.HandlerFunc(o.serve), ReadHeaderTimeout: headerTimeout, BaseContext: func(net.Listener) context.Context { return ctx }}
	go func() {
		defer close(o.ended)
		_ = o.server.Serve(listener) // until it is closed
	}()
	return o, nil
}

func (o *outlets) serve(w http.ResponseWriter, r *http.Request) {
	o.asked.Add(1)
	defer o.asked.Done()
	(*o.handler.Load()).ServeHTTP(w, r)
}

// answer has the outlets do what they are asked.
func (o *outlets) answer() { o.with(lab.Boards(o, o.password)) }

// deny has them know another password.
func (o *outlets) deny() { o.with(lab.Boards(o, rand.Text())) }

// hang has them take what they are asked, and answer nothing.
func (o *outlets) hang() {
	o.with(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
}

func (o *outlets) with(h http.Handler) { o.handler.Store(&h) }

// close returns when nothing is switched any more.
func (o *outlets) close() error {
	o.end()
	err := o.server.Close()
	<-o.ended
	o.asked.Wait()
	return err
}

// Nodes implements lab.Outlets.
func (o *outlets) Nodes(context.Context) ([]string, error) {
	return []string{script.Alpha, script.Beta}, nil
}

// machine is the one of a data node.
func (o *outlets) machine(node string) (*machine, error) {
	nodes, err := o.Nodes(context.Background())
	if err == nil && !slices.Contains(nodes, node) {
		err = fmt.Errorf("outlets: %w %q; there are %s", lab.ErrNoNode, node, strings.Join(nodes, ", "))
	}
	return o.lab.machines[node], err
}

// Ready implements lab.Outlets.
func (o *outlets) Ready(_ context.Context, node string) error {
	_, err := o.machine(node)
	return err
}

// Power implements lab.Outlets: it is whether QEMU runs.
func (o *outlets) Power(_ context.Context, node string) (on bool, err error) {
	m, err := o.machine(node)
	return err == nil && m.isOn(), err
}

// Off implements lab.Outlets. What has begun is brought to its end, whoever has asked:
// that one may be who is off.
func (o *outlets) Off(_ context.Context, node string) error {
	m, err := o.machine(node)
	if err != nil {
		return err
	}
	on := m.isOn()
	if on {
		o.lab.Say("the outlet of %s is switched off", node)
		err = o.lab.Do(script.Action{Verb: script.PowerOff, Node: node})
	}
	if err == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.off = append(o.off, saidOff{node, time.Now(), !on})
	}
	return err
}

// On implements lab.Outlets.
func (o *outlets) On(_ context.Context, node string) error {
	m, err := o.machine(node)
	if err != nil || m.isOn() {
		return err
	}
	return o.lab.Do(script.Action{Verb: script.PowerOn, Node: node})
}

// switchedOff are the nodes that were, since then.
func (o *outlets) switchedOff(since time.Time) (nodes []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.off {
		if c.at.After(since) && !c.already {
			nodes = append(nodes, c.node)
		}
	}
	return nodes
}

// lastOff is when an answer last said that a node is off now; zero: never.
func (o *outlets) lastOff(node string) (at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.off {
		if c.node == node {
			at = c.at
		}
	}
	return at
}
