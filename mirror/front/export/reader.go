package export

import "io"

// reader takes bytes off the socket in large gulps: many pipelined requests,
// or a small payload with the requests after it, in one system call.
type reader struct {
	recv   func([]byte) (int, error)
	before func() // runs before the reader may block
	buf    []byte
	from   int
	to     int
}

// buffered is the number of bytes that can be had without the kernel.
func (r *reader) buffered() int { return r.to - r.from }

// next returns the next n bytes, valid until the following call. n is at most
// the buffer's size. io.EOF means the stream ended before the first of them.
func (r *reader) next(n int) ([]byte, error) {
	if err := r.fill(n); err != nil {
		return nil, err
	}
	b := r.buf[r.from : r.from+n]
	r.from += n
	return b, nil
}

// fill makes at least n bytes available.
func (r *reader) fill(n int) error {
	if r.from == r.to {
		r.from, r.to = 0, 0
	}
	if r.to-r.from < n && len(r.buf)-r.from < n {
		r.to = copy(r.buf, r.buf[r.from:r.to])
		r.from = 0
	}
	for r.to-r.from < n {
		r.before()
		got, err := r.recv(r.buf[r.to:])
		if err == io.EOF && r.from != r.to {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		r.to += got
	}
	return nil
}

// read fills p. What is long and not here yet goes straight to p.
func (r *reader) read(p []byte) error {
	for len(p) > 0 {
		if r.from == r.to && len(p) < len(r.buf)/2 {
			if err := r.fill(1); err != nil {
				return midway(err)
			}
		}
		if r.from < r.to {
			n := copy(p, r.buf[r.from:r.to])
			r.from += n
			p = p[n:]
			continue
		}
		r.before()
		n, err := r.recv(p)
		if err != nil {
			return midway(err)
		}
		p = p[n:]
	}
	return nil
}

// skip throws n bytes away.
func (r *reader) skip(n int64) error {
	for n > 0 {
		if err := r.fill(1); err != nil {
			return midway(err)
		}
		take := min(n, int64(r.buffered()))
		r.from += int(take)
		n -= take
	}
	return nil
}

// midway: a stream that ends inside a payload did not end well.
func midway(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
