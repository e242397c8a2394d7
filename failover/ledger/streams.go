package ledger

import (
	"net"
	"sync"
)

// dialed are the streams to other voters that this node has opened, so that they can
// be closed when another machine is taken for the node at their end. mu is a leaf.
type dialed struct {
	mu sync.Mutex
	to map[*dialedConn]string
}

// dialedConn is one of them.
type dialedConn struct {
	net.Conn
	d *dialed
}

// add takes a stream in, before its greeting.
func (d *dialed) add(node string, c net.Conn) net.Conn {
	x := &dialedConn{c, d}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.to == nil {
		d.to = map[*dialedConn]string{}
	}
	d.to[x] = node
	return x
}

// Close implements net.Conn.
func (x *dialedConn) Close() error {
	x.d.mu.Lock()
	delete(x.d.to, x)
	x.d.mu.Unlock()
	return x.Conn.Close()
}

// cut breaks the streams to a node; whoever uses one closes it.
func (d *dialed) cut(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for x, to := range d.to {
		if to == node {
			x.Conn.Close() //nolint:errcheck // it is closed again by its user
		}
	}
}
