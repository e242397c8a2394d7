package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"hapair/mirror/stream"
	"hapair/mirror/wire"

	"go.uber.org/zap"
)

// Writing, in the order a message meets it: 1 queued by Send, 2 taken in a
// batch, by Flush or by the writer goroutine, 3 headers encoded side by side,
// 4 headers and payloads in one system call.
//
// At any time at most one goroutine, the sender, has the outflow. Flush becomes
// the sender when nobody is, so that a lone frame costs no hand-off, and leaves
// to the writer goroutine what the socket does not take at once.

// outflow is the sender's own: nothing in it is shared.
type outflow struct {
	conn    net.Conn
	vector  *stream.Vector // nil: copy into one buffer instead
	headers [batchFrames * wire.HeaderBytes]byte
	scratch []byte

	batch []wire.Message // taken off the queue
	next  int            // of batch, not yet in part
	part  []wire.Message // of batch, with the socket now
	bytes int64          // of part
	kept  bool           // the batch is remembered already, with what lanes carry in between
	begun time.Duration  // valid while kept: when part was made ready, by Link.now
}

// openFlows takes the socket below a data stream where that may be used itself:
// then frames need no copying and no hand-off.
func openFlows(conn net.Conn) (*outflow, io.Reader, error) {
	tcp, ok := conn.(*net.TCPConn)
	if c, raw := conn.(interface{ Raw() *net.TCPConn }); raw && !ok {
		tcp = c.Raw()
	}
	if tcp == nil {
		return &outflow{conn: conn, scratch: make([]byte, 0, copyBufferBytes)}, conn, nil
	}
	v, err := stream.NewVector(tcp, 2*batchFrames)
	if err != nil {
		return nil, nil, fmt.Errorf("data stream: %w", err)
	}
	in, err := stream.NewReader(tcp)
	if err != nil {
		return nil, nil, fmt.Errorf("data stream: %w", err)
	}
	return &outflow{conn: conn, vector: v}, in, nil
}

// writersLocked reports whether what is queued is left to the writer goroutine:
// the stream cannot be written without waiting, or it is too much.
func (s *session) writersLocked() bool {
	return s.mu.strand.out.vector == nil || s.mu.bytes > directBytesMax
}

// flush sends what is queued, if the socket takes it at once and nobody else
// is about to; otherwise it sees that the writer does. It never waits.
func (s *session) flush() {
	s.mu.Lock()
	s.offerRunsLocked()
	if s.mu.ended || s.mu.sending || s.mu.resume.broken || len(s.mu.queue) == 0 {
		s.mu.Unlock()
		return
	}
	if s.writersLocked() {
		s.mu.filled.Signal()
		s.mu.Unlock()
		return
	}
	s.mu.sending = true
	st := s.mu.strand
	s.mu.Unlock()
	s.deliver(st, false)
}

// write is the writer goroutine: it takes over from a sender that met a full
// socket, and sends what Flush leaves to it, until the session ends.
func (s *session) write() {
	for st := s.takeOver(); st != nil; st = s.takeOver() {
		s.deliver(st, true)
	}
}

// takeOver waits until the writer is to be the sender, and returns over which
// strand; nil when the session is over.
func (s *session) takeOver() *strand {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.mu.ended {
		left := s.mu.handed || !s.mu.sending && len(s.mu.queue) > 0 && s.writersLocked()
		if left && !s.mu.resume.broken {
			s.mu.handed, s.mu.sending = false, true
			return s.mu.strand
		}
		s.mu.filled.Wait()
	}
	return nil
}

// deliver empties the queue; the caller is the sender and is no more when it
// returns. Without wait it hands over to the writer where it would have to, or
// would be kept for long.
func (s *session) deliver(st *strand, wait bool) {
	for round := 0; ; round++ {
		more, err := s.nextPart(st.out, wait, round)
		if err == nil && !more {
			return
		}
		if err == nil {
			err = st.out.push(wait)
		}
		switch {
		case errors.Is(err, stream.ErrFull):
			s.mu.Lock()
			s.handOverLocked()
			s.mu.Unlock()
			return
		case err != nil:
			s.broke(st, fmt.Errorf("write to data stream: %w", err))
			s.release()
			return
		}
		s.sent(st)
		if st.out.part[len(st.out.part)-1].Kind == wire.Refuse {
			s.farewell(st)
			s.release()
			return
		}
		st.out.part = nil
	}
}

// nextPart makes the next frames ready for the socket. With none left, or when
// they are handed over, the caller is the sender no more.
func (s *session) nextPart(o *outflow, wait bool, round int) (more bool, err error) {
	if o.part != nil {
		return true, nil // handed over half sent
	}
	if o.next == len(o.batch) && !s.take(o, wait, round) {
		return false, nil
	}
	o.part = o.batch[o.next:min(len(o.batch), o.next+batchFrames)]
	o.next += len(o.part)
	if o.kept {
		o.begun = s.link.now()
	}
	return true, o.encode()
}

// take exchanges the queue for the used batch. With nothing queued the caller
// is the sender no more; nor is it when what is there is the writer's.
func (s *session) take(o *outflow, wait bool, round int) bool {
	clear(o.batch) // keeps no payload alive
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.queue) == 0 || s.mu.ended || s.mu.resume.broken {
		s.mu.sending = false
		s.mu.idle.Broadcast()
		return false
	}
	if !wait && (round >= directRoundsMax || s.writersLocked()) {
		s.handOverLocked()
		return false
	}
	o.next, o.kept = 0, s.mu.split.on
	if !o.kept {
		o.batch, s.mu.queue = s.mu.queue, o.batch[:0]
		return true
	}
	o.batch, s.mu.queue = s.mu.split.front(o.batch[:0], s.mu.queue)
	s.mu.resume.remember(s.mu.split.ordered(o.batch))
	s.offerRunsLocked()
	return true
}

// handOverLocked makes the writer the sender.
func (s *session) handOverLocked() {
	s.mu.handed = true
	s.mu.filled.Signal()
	s.mu.idle.Broadcast()
}

// release ends the sender's part where the session is over or about to be.
func (s *session) release() {
	s.mu.Lock()
	s.mu.sending = false
	s.mu.idle.Broadcast()
	s.mu.Unlock()
}

// sent accounts for the part that is gone.
func (s *session) sent(st *strand) {
	messages, bytes := len(st.out.part), st.out.bytes
	st.count.framesOut.Add(uint64(messages))
	st.count.bytesOut.Add(uint64(bytes))
	s.mu.Lock()
	if now := s.link.now; st.out.kept {
		s.mu.split.busy -= bytes
		s.mu.pace.add(bytes, now()-st.out.begun, now())
	} else {
		s.mu.resume.remember(st.out.part)
	}
	s.mu.messages -= messages
	s.mu.bytes -= bytes
	s.mu.Unlock()
}

// farewell lets a Refuse arrive: this side closes for writing, and the session
// ends when the peer has closed too, or the linger timer runs out.
func (s *session) farewell(st *strand) {
	half, ok := st.pair.data.(interface{ CloseWrite() error })
	if !ok {
		s.end(ErrRefusing)
		return
	}
	s.mu.Lock()
	if s.mu.reason == nil {
		s.mu.reason = ErrRefusing
	}
	s.mu.Unlock()
	if err := half.CloseWrite(); err != nil {
		s.log.Debug("closing for writing failed", zap.Error(err))
		s.end(ErrRefusing)
	}
}

// encode writes the headers of part and, for a socket, lists the pieces.
func (o *outflow) encode() error {
	o.bytes = 0
	for i := range o.part {
		if err := wire.EncodeHeader(o.header(i), &o.part[i]); err != nil {
			return fmt.Errorf("%s: %w", &o.part[i], err)
		}
		o.bytes += int64(wire.HeaderBytes + len(o.part[i].Data))
	}
	if o.vector == nil {
		return nil
	}
	// headers of frames without payload lie side by side: one piece
	o.vector.Reset()
	from := 0
	for i := range o.part {
		if len(o.part[i].Data) == 0 && i < len(o.part)-1 {
			continue
		}
		o.vector.Add(o.headers[from*wire.HeaderBytes : (i+1)*wire.HeaderBytes])
		o.vector.Add(o.part[i].Data)
		from = i + 1
	}
	return nil
}

// push sends part, or what is left of it.
func (o *outflow) push(wait bool) error {
	if o.vector == nil {
		return o.pushCopied()
	}
	err := o.vector.Push(wait)
	if err == nil {
		o.vector.Reset()
	}
	return err
}

func (o *outflow) header(i int) []byte {
	return o.headers[i*wire.HeaderBytes : (i+1)*wire.HeaderBytes]
}

// pushCopied gathers frames in one buffer, so that an encrypted stream makes
// as few records as it can.
func (o *outflow) pushCopied() (err error) {
	add := func(b []byte) {
		for len(b) > 0 && err == nil {
			n := min(len(b), cap(o.scratch)-len(o.scratch))
			o.scratch = append(o.scratch, b[:n]...)
			b = b[n:]
			if len(o.scratch) == cap(o.scratch) {
				_, err = o.conn.Write(o.scratch)
				o.scratch = o.scratch[:0]
			}
		}
	}
	for i := range o.part {
		add(o.header(i))
		add(o.part[i].Data)
	}
	if err == nil && len(o.scratch) > 0 {
		_, err = o.conn.Write(o.scratch)
	}
	o.scratch = o.scratch[:0]
	return err
}
