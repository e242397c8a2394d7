package link

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// Reading, in the order a frame meets it: 1 bytes into a big buffer, 2 header
// judged, 3 payload into an aligned buffer of its own, 4 checksum, 5 Sink.

// readData hands the frames of the data stream to the Sink until the stream or
// the session ends, and says why it ended. A frame counts as received before the
// Sink has it: whatever the Sink sends for it, it cannot be asked for again.
func (s *session) readData(st *strand) error {
	in := inflow{conn: st.in, s: s, count: &st.count.bytesIn, before: s.link.cfg.Sink.Drained, buf: make([]byte, readBufferBytes)}
	var m wire.Message
	for {
		if err := in.next(&m); err != nil {
			return fmt.Errorf("read from data stream: %w", err)
		}
		if m.Kind == wire.Ping || m.Kind == wire.Pong {
			if err := s.fromLanes(&m); err != nil {
				return err
			}
			continue
		}
		st.count.framesIn.Add(1)
		s.hand(&m)
	}
}

// hand gives the Sink the message that is next.
func (s *session) hand(m *wire.Message) {
	s.received.Add(1)
	if !s.deaf() {
		s.link.cfg.Sink.Message(s.id, m)
	}
	m.Release()
}

// deaf reports whether what still comes in is of no interest any more.
func (s *session) deaf() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.ended || s.mu.refusing
}

// inflow takes frames off a stream.
type inflow struct {
	conn   io.Reader
	s      *session       // that hears of it; nil: none does
	count  *atomic.Uint64 // of bytes; nil: not counted
	before func()         // runs before a read; nil: nothing does
	buf    []byte
	r, w   int // unread bytes are buf[r:w]
}

// fill makes at least n bytes available in buf; n is at most len(buf).
func (in *inflow) fill(n int) error {
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	if len(in.buf)-in.r < n {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	for in.w-in.r < n {
		k, err := in.read(in.buf[in.w:])
		in.w += k
		if err != nil && in.w-in.r < n {
			return closedByPeer(err, in.w == in.r)
		}
	}
	return nil
}

// read takes what the network has.
func (in *inflow) read(p []byte) (int, error) {
	if in.before != nil {
		in.before()
	}
	n, err := in.conn.Read(p)
	if n > 0 {
		if in.s != nil {
			in.s.hearing()
		}
		if in.count != nil {
			in.count.Add(uint64(n))
		}
	}
	return n, err
}

// closedByPeer names the end of a stream; between frames it is in order.
func closedByPeer(err error, between bool) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	if between {
		return ErrPeerClosed
	}
	return fmt.Errorf("in the middle of a frame: %w: %w", io.ErrUnexpectedEOF, ErrPeerClosed)
}

// next reads one whole frame. The payload lands in a pooled buffer that is
// aligned for direct I/O.
func (in *inflow) next(m *wire.Message) error {
	if err := in.fill(wire.HeaderBytes); err != nil {
		return err
	}
	p, err := wire.DecodeHeader(in.buf[in.r:in.w], m)
	if err != nil {
		return err
	}
	in.r += wire.HeaderBytes
	if p.Bytes == 0 {
		return nil
	}
	m.Buffer = block.GetBuffer(p.Bytes)
	m.Data = m.Buffer.Bytes(p.Bytes)
	have := copy(m.Data, in.buf[in.r:in.w])
	in.r += have
	for have < p.Bytes {
		k, err := in.read(m.Data[have:])
		have += k
		if err != nil && have < p.Bytes {
			m.Release()
			return closedByPeer(err, false)
		}
	}
	if err := p.Check(m.Data); err != nil {
		m.Release()
		return err
	}
	return nil
}

// readControl answers pings, takes the round-trip time from pongs, and from both
// how much the peer has.
func (s *session) readControl(st *strand) {
	in := inflow{conn: st.pair.control, s: s, buf: make([]byte, 16*wire.HeaderBytes)}
	var m wire.Message
	for {
		err := in.next(&m)
		st.said.Store(int64(s.link.now()))
		switch {
		case err != nil:
		case m.Kind == wire.Ping:
			s.confirmed(m.Token)
			err = s.tell(st, wire.Pong, m.ID)
		case m.Kind == wire.Pong:
			s.confirmed(m.Token)
			st.count.roundTrip(s.link.now() - time.Duration(m.ID))
		default:
			m.Release()
			err = fmt.Errorf("%s on the control stream: %w", m.Kind, ErrProtocol)
		}
		if err != nil {
			s.broke(st, fmt.Errorf("control stream: %w", err))
			return
		}
	}
}
