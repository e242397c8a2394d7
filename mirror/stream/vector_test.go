package stream

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// streams are two connected unix sockets.
func streams(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// Pieces of every length arrive in order, whatever the socket takes at once.
func TestEverythingArrives(t *testing.T) {
	a, b := streams(t)
	v, err := NewVector(a, 64)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(b)
		got <- all
	}()
	rng := rand.New(rand.NewPCG(1, 1))
	full := 0
	for range 8 {
		for v.Room() > 0 {
			piece := make([]byte, rng.IntN(40_000))
			for i := range piece {
				piece[i] = byte(rng.Uint32())
			}
			want = append(want, piece...)
			v.Add(piece)
			if len(piece) == 0 {
				break
			}
		}
		err := v.Push(false)
		if errors.Is(err, ErrFull) {
			full++
			err = v.Push(true)
		}
		if err != nil || v.Bytes() != 0 {
			t.Fatalf("%v, %d bytes left", err, v.Bytes())
		}
		v.Reset()
	}
	a.CloseWrite()
	if all := <-got; !bytes.Equal(all, want) {
		t.Fatalf("%d bytes arrived, %d were sent, or they differ", len(all), len(want))
	}
	if full == 0 {
		t.Error("the socket was never full: the test shows little")
	}
}

func TestErrors(t *testing.T) {
	a, b := streams(t)
	v, err := NewVector(a, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Push(true); err != nil {
		t.Errorf("nothing to send: %v", err)
	}
	b.Close()
	v.Add([]byte("x"))
	if err := v.Push(false); !errors.Is(err, unix.EPIPE) {
		t.Errorf("the other end is closed: %v", err)
	}
	a.Close()
	if err := v.Push(true); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	a, b := streams(t)
	v, err := NewVector(a, 4)
	if err != nil {
		t.Fatal(err)
	}
	head, data, back := make([]byte, 32), make([]byte, 4096), make([]byte, 4128)
	n := testing.AllocsPerRun(100, func() {
		v.Add(head)
		v.Add(data)
		if err := v.Push(false); err != nil {
			t.Fatal(err)
		}
		v.Reset()
		if _, err := io.ReadFull(b, back); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for each message", n)
	}
}
