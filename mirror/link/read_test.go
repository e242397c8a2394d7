package link

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"hapair/mirror/wire"

	"pgregory.net/rapid"
)

// chunks is a stream that arrives in pieces of the given sizes, in turn.
type chunks struct {
	net.Conn
	b     []byte
	sizes []int
	turn  int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(c.b), c.sizes[c.turn%len(c.sizes)])
	c.turn++
	copy(p, c.b[:n])
	c.b = c.b[n:]
	return n, nil
}

func flow(b []byte, buffer int, sizes ...int) *inflow {
	l := &Link{}
	return &inflow{conn: &chunks{b: b, sizes: sizes}, s: &session{link: l}, buf: make([]byte, buffer)}
}

// However a stream is cut into reads, the same messages come out of it.
func TestInflowChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var sent []wire.Message
		for id := range uint64(rapid.IntRange(1, 20).Draw(t, "messages")) {
			m := wire.Message{Kind: wire.Ack, ID: id}
			if n := rapid.IntRange(0, 20).Draw(t, "sectors"); n > 0 {
				m = writeMessage(id, n*512)
			}
			var err error
			if stream, err = wire.AppendFrame(stream, &m); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, m)
		}
		sizes := rapid.SliceOfN(rapid.IntRange(1, 9000), 1, 8).Draw(t, "chunks")
		in := flow(stream, rapid.IntRange(wire.HeaderBytes, 8192).Draw(t, "buffer"), sizes...)
		var m wire.Message
		for i := range sent {
			if err := in.next(&m); err != nil {
				t.Fatal(err)
			}
			if m.ID != sent[i].ID || m.Kind != sent[i].Kind || !bytes.Equal(m.Data, sent[i].Data) {
				t.Fatalf("%s instead of %s", &m, &sent[i])
			}
			m.Release()
		}
		if err := in.next(&m); !errors.Is(err, ErrPeerClosed) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("at the end: %v", err)
		}
	})
}

func FuzzInflow(f *testing.F) {
	m := writeMessage(3, 512)
	frame, err := wire.AppendFrame(nil, &m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(frame, frame...), 100)
	f.Add(frame[:70], 1)
	f.Add([]byte("garbage"), 3)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		in := flow(b, 1024, max(1, size%2000))
		var m wire.Message
		for {
			err := in.next(&m)
			if err != nil {
				var format *wire.FormatError
				if !errors.Is(err, ErrPeerClosed) && !errors.As(err, &format) {
					t.Fatal(err)
				}
				if m.Buffer != nil {
					t.Fatal("a failed frame keeps its buffer")
				}
				return
			}
			m.Release()
		}
	})
}
