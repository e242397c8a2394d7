package link

import (
	"fmt"
	"net"

	"hapair/mirror/wire"

	"go.uber.org/zap"
)

// Writing, in the order a message meets it: 1 queued by Send, 2 taken in a
// batch, 3 headers encoded side by side, 4 headers and payloads in one writev.

// outflow is the writer's own: nothing in it is shared.
type outflow struct {
	conn    net.Conn
	tcp     *net.TCPConn // nil: copy into one buffer instead
	headers [batchFrames * wire.HeaderBytes]byte
	vector  [2 * batchFrames][]byte
	buffers net.Buffers // a window of vector; a field, so that it does not escape anew each time
	scratch []byte
}

func newOutflow(conn net.Conn) *outflow {
	o := &outflow{conn: conn}
	switch c := conn.(type) {
	case *net.TCPConn:
		o.tcp = c
	case interface{ Raw() *net.TCPConn }:
		o.tcp = c.Raw()
	}
	if o.tcp == nil {
		o.scratch = make([]byte, 0, copyBufferBytes)
	}
	return o
}

// write sends what is queued until the session ends.
func (s *session) write() {
	out := newOutflow(s.pair.data)
	var batch []wire.Message
	for {
		batch = s.take(batch)
		if batch == nil {
			return
		}
		for rest := batch; len(rest) > 0; {
			part := rest[:min(len(rest), batchFrames)]
			rest = rest[len(part):]
			n, err := out.send(part)
			if err != nil {
				s.end(fmt.Errorf("write to data stream: %w", err))
				return
			}
			s.sent(len(part), n)
			if part[len(part)-1].Kind == wire.Refuse {
				s.farewell()
				return
			}
		}
		clear(batch) // keeps no payload alive
	}
}

// take waits for messages and exchanges the queue for the used batch; nil when
// the session is over.
func (s *session) take(used []wire.Message) []wire.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.mu.queue) == 0 && !s.mu.ended {
		s.mu.filled.Wait()
	}
	if s.mu.ended {
		return nil
	}
	batch := s.mu.queue
	s.mu.queue = used[:0]
	return batch
}

func (s *session) sent(messages int, bytes int64) {
	s.count.framesOut.Add(uint64(messages))
	s.count.bytesOut.Add(uint64(bytes))
	s.mu.Lock()
	s.mu.messages -= messages
	s.mu.bytes -= bytes
	s.mu.Unlock()
}

// farewell lets a Refuse arrive: this side closes for writing, and the session
// ends when the peer has closed too, or the linger timer runs out.
func (s *session) farewell() {
	half, ok := s.pair.data.(interface{ CloseWrite() error })
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

// send writes up to batchFrames messages and returns their bytes.
func (o *outflow) send(batch []wire.Message) (int64, error) {
	for i := range batch {
		if err := wire.EncodeHeader(o.header(i), &batch[i]); err != nil {
			return 0, fmt.Errorf("%s: %w", &batch[i], err)
		}
	}
	if o.tcp == nil {
		return o.sendCopied(batch)
	}
	// headers of frames without payload lie side by side: one piece
	n, from := 0, 0
	for i := range batch {
		if len(batch[i].Data) == 0 && i < len(batch)-1 {
			continue
		}
		o.vector[n] = o.headers[from*wire.HeaderBytes : (i+1)*wire.HeaderBytes]
		n, from = n+1, i+1
		if len(batch[i].Data) > 0 {
			o.vector[n] = batch[i].Data
			n++
		}
	}
	o.buffers = o.vector[:n]
	written, err := o.buffers.WriteTo(o.tcp)
	clear(o.vector[:n])
	return written, err
}

func (o *outflow) header(i int) []byte {
	return o.headers[i*wire.HeaderBytes : (i+1)*wire.HeaderBytes]
}

// sendCopied gathers frames in one buffer, so that an encrypted stream makes
// as few records as it can.
func (o *outflow) sendCopied(batch []wire.Message) (total int64, err error) {
	add := func(b []byte) {
		for len(b) > 0 && err == nil {
			n := min(len(b), cap(o.scratch)-len(o.scratch))
			o.scratch = append(o.scratch, b[:n]...)
			b = b[n:]
			total += int64(n)
			if len(o.scratch) == cap(o.scratch) {
				_, err = o.conn.Write(o.scratch)
				o.scratch = o.scratch[:0]
			}
		}
	}
	for i := range batch {
		add(o.header(i))
		add(batch[i].Data)
	}
	if err == nil && len(o.scratch) > 0 {
		_, err = o.conn.Write(o.scratch)
	}
	o.scratch = o.scratch[:0]
	return total, err
}
