package paths

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A question is a header, little-endian, and as many zero bytes as fill some whole
// frames of the path. The peer sends the same bytes back:
//
//	4 magic | 4 bytes of the whole | 8 when it was sent, by who asks
const (
	magic       = "HAP\x01"
	headerBytes = 16
	// maxBytes bounds a question: two segments of the largest usual frame.
	maxBytes = 2 * 9000
)

// ErrFrame is what is no question.
var ErrFrame = errors.New("not a question of full size")

// appendQuestion appends one of size bytes, which are brought within the bounds.
func appendQuestion(b []byte, size int, sent uint64) []byte {
	size = min(max(size, headerBytes), maxBytes)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b = binary.LittleEndian.AppendUint64(b, sent)
	return append(b, make([]byte, size-headerBytes)...)
}

// parseHeader returns how long a question is, and when it was sent.
func parseHeader(h []byte) (size int, sent uint64, err error) {
	if len(h) < headerBytes || string(h[:len(magic)]) != magic {
		return 0, 0, fmt.Errorf("begins with %x: %w", h[:min(len(h), len(magic))], ErrFrame)
	}
	n := binary.LittleEndian.Uint32(h[len(magic):])
	if n < headerBytes || n > maxBytes {
		return 0, 0, fmt.Errorf("of %d bytes, must have %d to %d: %w", n, headerBytes, maxBytes, ErrFrame)
	}
	return int(n), binary.LittleEndian.Uint64(h[8:]), nil
}

// readQuestion reads a whole one into buf, which has maxBytes.
func readQuestion(r io.Reader, buf []byte) (whole []byte, sent uint64, err error) {
	if _, err := io.ReadFull(r, buf[:headerBytes]); err != nil {
		return nil, 0, err
	}
	size, sent, err := parseHeader(buf[:headerBytes])
	if err != nil {
		return nil, 0, err
	}
	if _, err := io.ReadFull(r, buf[headerBytes:size]); err != nil {
		return nil, 0, err
	}
	return buf[:size], sent, nil
}
