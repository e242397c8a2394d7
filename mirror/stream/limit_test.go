package stream

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A socket whose peer does not read is full with little that has not left, whatever
// its buffer would hold.
func TestLimitUnsent(t *testing.T) {
	const limit, slack = 64 << 10, 256 << 10 // a segment that has begun is filled
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tcp := conn.(*net.TCPConn)
	if err := LimitUnsent(tcp, limit); err != nil {
		t.Fatal(err)
	}
	v, err := NewVector(tcp, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := tcp.SetWriteBuffer(8 << 20); err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 1<<20)
	for range 1000 {
		v.Add(piece)
		if err = v.Push(false); err != nil {
			break
		}
		v.Reset()
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("a gigabyte was taken: %v", err)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	unsent := 0
	var asked error
	if err := raw.Control(func(fd uintptr) { unsent, asked = unix.IoctlGetInt(int(fd), unix.SIOCOUTQNSD) }); err != nil || asked != nil {
		t.Fatal(err, asked)
	}
	if unsent == 0 || unsent > limit+slack {
		t.Fatalf("%d bytes wait in the socket", unsent)
	}
	if err := tcp.Close(); err != nil {
		t.Fatal(err)
	}
	if err := LimitUnsent(tcp, limit); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("closed: %v", err)
	}
}
