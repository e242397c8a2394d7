package export

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/front/holder"

	"go.uber.org/zap"
)

// instant completes everything inside Submit and touches nothing.
type instant struct{}

func (instant) Submit(r *block.Request) { r.Answer(nil) }

// deferred completes on another goroutine.
type deferred struct{ queue chan *block.Request }

func newDeferred() deferred {
	d := deferred{make(chan *block.Request, 128)}
	go func() {
		for r := range d.queue {
			r.Answer(nil)
		}
	}()
	return d
}

func (d deferred) Submit(r *block.Request) { d.queue <- r }

// pair returns a server connection that serves and the client's end of it.
func pair(tb testing.TB, h block.Handler, ses session, size int64) (client *net.UnixConn, served chan error) {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		nc, err := net.FileConn(f)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			tb.Fatal(err)
		}
		ends[i] = nc.(*net.UnixConn)
	}
	sock, err := newSocket(ends[0])
	if err != nil {
		tb.Fatal(err)
	}
	g := block.Geometry{SizeBytes: size, LogicalBlockBytes: 512, PhysicalBlockBytes: 4096, MaxTransferBytes: block.MaxTransferBytes, Discard: true}
	c, err := newConn(sock, h, g, ses, holder.Holder{}, zap.NewNop())
	if err != nil {
		tb.Fatal(err)
	}
	served = make(chan error, 1)
	go func() {
		err := c.serve()
		if cerr := c.sock.close(); err == nil {
			err = cerr
		}
		served <- err
	}()
	return ends[1], served
}

func head(kind, flags uint16, cookie, offset uint64, length uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, requestMagic)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, offset)
	return binary.BigEndian.AppendUint32(b, length)
}

// benchmark sends depth requests at once and reads their replies, b.N times
// a request.
func benchmark(b *testing.B, h block.Handler, kind uint16, depth int) {
	client, served := pair(b, h, session{}, 1<<30)
	one := head(kind, 0, 1, 4096, 4096)
	reply := simpleHeadBytes
	if kind == cmdWrite {
		one = append(one, make([]byte, 4096)...)
	} else {
		reply += 4096
	}
	var all []byte
	for range depth {
		all = append(all, one...)
	}
	replies := make([]byte, reply*depth)
	round := func() {
		if _, err := client.Write(all); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(client, replies); err != nil {
			b.Fatal(err)
		}
	}
	round()
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += depth {
		round()
	}
	b.StopTimer()
	if _, err := client.Write(head(cmdDisconnect, 0, 0, 0, 0)); err != nil {
		b.Fatal(err)
	}
	if err := <-served; err != nil {
		b.Fatal(err)
	}
	if err := client.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkInstant(b *testing.B) {
	b.Run("write/1", func(b *testing.B) { benchmark(b, instant{}, cmdWrite, 1) })
	b.Run("write/32", func(b *testing.B) { benchmark(b, instant{}, cmdWrite, 32) })
	b.Run("read/1", func(b *testing.B) { benchmark(b, instant{}, cmdRead, 1) })
	b.Run("read/32", func(b *testing.B) { benchmark(b, instant{}, cmdRead, 32) })
}

func BenchmarkDeferred(b *testing.B) {
	for _, c := range []struct {
		name  string
		kind  uint16
		depth int
	}{{"write/1", cmdWrite, 1}, {"write/32", cmdWrite, 32}, {"read/1", cmdRead, 1}, {"read/32", cmdRead, 32}} {
		b.Run(c.name, func(b *testing.B) {
			d := newDeferred()
			benchmark(b, d, c.kind, c.depth)
			close(d.queue)
		})
	}
}

// TestNoAllocation holds the steady state to its promise.
func TestNoAllocation(t *testing.T) {
	for _, c := range []struct {
		name string
		kind uint16
	}{{"write", cmdWrite}, {"read", cmdRead}} {
		got := testing.Benchmark(func(b *testing.B) { benchmark(b, instant{}, c.kind, 32) })
		if n := got.AllocsPerOp(); n != 0 {
			t.Errorf("4k %s allocates %d times: %s %s", c.name, n, got, got.MemString())
		}
	}
}
