package export_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"hapair/mirror/front"
	"hapair/mirror/front/export"
	"hapair/mirror/front/fronttest"
)

func TestConformance(t *testing.T) {
	for _, structured := range []bool{true, false} {
		t.Run(fmt.Sprintf("structured=%v", structured), func(t *testing.T) {
			fronttest.Run(t, fronttest.Subject{
				New: func(t *testing.T) front.Frontend {
					return export.New(export.Config{Socket: filepath.Join(t.TempDir(), "s"), Name: "r0/0"})
				},
				Open: func(t *testing.T, path string) fronttest.Client { return dial(t, path, structured) },
			})
		})
	}
}

// client is a small NBD client: requests may be made side by side.
type client struct {
	conn       net.Conn
	structured bool
	mu         sync.Mutex
	cookie     uint64
	waiting    map[uint64]*waiter
	broken     error
	done       chan struct{}
}

type waiter struct {
	into    []byte
	outcome chan error
}

func dial(t *testing.T, uri string, structured bool) fronttest.Client {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", u.Query().Get("socket"))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{conn: conn, structured: structured, waiting: map[uint64]*waiter{}, done: make(chan struct{})}
	if err := c.greet(); err != nil {
		t.Fatal(err)
	}
	go c.receive()
	return c
}

// option sends one and reads its replies up to the last.
func (c *client) option(opt uint32, data []byte) error {
	b := append([]byte("IHAVEOPT"), binary.BigEndian.AppendUint32(nil, opt)...)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	for {
		head := make([]byte, 20)
		if _, err := io.ReadFull(c.conn, head); err != nil {
			return err
		}
		if _, err := io.ReadFull(c.conn, make([]byte, binary.BigEndian.Uint32(head[16:]))); err != nil {
			return err
		}
		switch kind := binary.BigEndian.Uint32(head[12:]); kind {
		case 1:
			return nil
		case 3:
		default:
			return fmt.Errorf("option %d answered with %#x", opt, kind)
		}
	}
}

func (c *client) greet() error {
	if _, err := io.ReadFull(c.conn, make([]byte, 18)); err != nil {
		return err
	}
	if _, err := c.conn.Write([]byte{0, 0, 0, 3}); err != nil {
		return err
	}
	if c.structured {
		if err := c.option(8, nil); err != nil {
			return err
		}
	}
	return c.option(7, make([]byte, 6))
}

func (c *client) receive() {
	defer close(c.done)
	for {
		err := c.reply()
		if err == nil {
			continue
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.broken = err
		for _, w := range c.waiting {
			w.outcome <- err
		}
		return
	}
}

// reply reads one; the server sends each in one piece.
func (c *client) reply() error {
	head := make([]byte, 16)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return err
	}
	c.mu.Lock()
	w := c.waiting[binary.BigEndian.Uint64(head[8:])]
	delete(c.waiting, binary.BigEndian.Uint64(head[8:]))
	c.mu.Unlock()
	if w == nil {
		return errors.New("a reply to nothing")
	}
	number, err := c.outcome(head, w)
	if err != nil {
		w.outcome <- err
		return err
	}
	if number == 0 && w.into != nil {
		if _, err := io.ReadFull(c.conn, w.into); err != nil {
			w.outcome <- err
			return err
		}
	}
	w.finish(number)
	return nil
}

// outcome reads the reply up to its data.
func (c *client) outcome(head []byte, w *waiter) (number uint32, err error) {
	if binary.BigEndian.Uint32(head) == 0x67446698 {
		if c.structured && w.into != nil {
			return 0, errors.New("a simple reply to a read")
		}
		return binary.BigEndian.Uint32(head[4:]), nil
	}
	length := make([]byte, 4)
	if _, err := io.ReadFull(c.conn, length); err != nil {
		return 0, err
	}
	payload := make([]byte, 8) // a data chunk's offset
	failed := binary.BigEndian.Uint16(head[6:]) != 1
	if failed {
		payload = make([]byte, binary.BigEndian.Uint32(length))
	}
	if _, err := io.ReadFull(c.conn, payload); err != nil {
		return 0, err
	}
	if failed {
		return binary.BigEndian.Uint32(payload), nil
	}
	return 0, nil
}

func (w *waiter) finish(number uint32) {
	if number == 0 {
		w.outcome <- nil
		return
	}
	w.outcome <- syscall.Errno(number)
}

// ask sends a request and waits for its reply.
func (c *client) ask(kind, flags uint16, offset int64, length int, data, into []byte) error {
	w := &waiter{into: into, outcome: make(chan error, 1)}
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return c.broken
	}
	c.cookie++
	c.waiting[c.cookie] = w
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, c.cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(offset))
	b = append(binary.BigEndian.AppendUint32(b, uint32(length)), data...)
	_, err := c.conn.Write(b)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return <-w.outcome
}

func (c *client) Read(p []byte, offset int64) error { return c.ask(0, 0, offset, len(p), nil, p) }

func (c *client) Write(p []byte, offset int64, fua bool) error {
	var flags uint16
	if fua {
		flags = 1
	}
	return c.ask(1, flags, offset, len(p), p, nil)
}

func (c *client) Flush() error { return c.ask(3, 0, 0, 0, nil, nil) }

func (c *client) Discard(offset, length int64) error {
	return c.ask(4, 0, offset, int(length), nil, nil)
}

func (c *client) WriteZeroes(offset, length int64, keep bool) error {
	var flags uint16
	if keep {
		flags = 2
	}
	return c.ask(6, flags, offset, int(length), nil, nil)
}

func (c *client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}
