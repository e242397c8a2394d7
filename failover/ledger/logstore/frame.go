// Package logstore keeps raft's log, its vote and its snapshot on disk. It
// guards the vote: what it has answered for survives a power cut.
//
// The log is one append-only file of frames, each the outcome of one operation,
// made durable by one fdatasync before the operation returns. A frame is
//
//	magic u32 | payload length u32 | sequence u64 | crc32c u32 | payload
//
// little-endian, the checksum covering length, sequence and payload. Frame n+1
// is written only after frame n is durable. So a bad frame with a good one
// behind it is corruption, which is refused, and a bad one at the end is an
// operation that never returned, which is cut off.
package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

const (
	frameMagic  = 0x31676c68 // "hlg1"
	frameHeader = 20
	// MaxFrame bounds the payload of one frame, in bytes.
	MaxFrame  = 32 << 20
	maxKey    = 256
	fileMagic = "hapair ledger 1\n"
)

const (
	opEntry  = 1
	opSet    = 2
	opDelete = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCorrupt is matched by every CorruptError.
var ErrCorrupt = errors.New("ledger store is corrupt")

// CorruptError says where durable bytes are not what was written.
type CorruptError struct {
	Path   string
	Offset int64
	What   string
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: byte %d: %s: %v; move the directory away and let this node rejoin empty", e.Path, e.Offset, e.What, ErrCorrupt)
}

// Is makes errors.Is(err, ErrCorrupt) hold.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

func frameSum(header, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(header[4:16], castagnoli), castagnoli, payload)
}

// sealFrame fills in the header of a buffer whose first frameHeader bytes are
// reserved for it.
func sealFrame(b []byte, seq uint64) {
	binary.LittleEndian.PutUint32(b, frameMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-frameHeader))
	binary.LittleEndian.PutUint64(b[8:], seq)
	binary.LittleEndian.PutUint32(b[16:], frameSum(b, b[frameHeader:]))
}

// openFrame returns the payload and sequence of the frame b begins with, and
// false when b begins with no whole good frame.
func openFrame(b []byte) (payload []byte, seq uint64, ok bool) {
	if len(b) < frameHeader || binary.LittleEndian.Uint32(b) != frameMagic {
		return nil, 0, false
	}
	n := int(binary.LittleEndian.Uint32(b[4:]))
	if n > MaxFrame || n > len(b)-frameHeader {
		return nil, 0, false
	}
	payload = b[frameHeader : frameHeader+n]
	if binary.LittleEndian.Uint32(b[16:]) != frameSum(b, payload) {
		return nil, 0, false
	}
	return payload, binary.LittleEndian.Uint64(b[8:]), true
}

func appendEntry(b []byte, l *raft.Log) []byte {
	b = append(b, opEntry)
	b = binary.LittleEndian.AppendUint64(b, l.Index)
	b = binary.LittleEndian.AppendUint64(b, l.Term)
	b = append(b, byte(l.Type))
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = appendBytes(b, l.Data)
	return appendBytes(b, l.Extensions)
}

func appendSet(b []byte, key string, val []byte) []byte {
	return appendBytes(appendBytes(append(b, opSet), []byte(key)), val)
}

func appendDelete(b []byte, lo, hi uint64) []byte {
	b = binary.LittleEndian.AppendUint64(append(b, opDelete), lo)
	return binary.LittleEndian.AppendUint64(b, hi)
}

func appendBytes(b, v []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(v))), v...)
}

// reader takes a payload apart. After the first failure everything is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (r *reader) bytes() []byte {
	v := r.take(int(r.u32()))
	if len(v) == 0 {
		return nil
	}
	return append([]byte(nil), v...)
}

func (r *reader) entry() *raft.Log {
	l := &raft.Log{Index: r.u64(), Term: r.u64(), Type: raft.LogType(r.u8())}
	if at := int64(r.u64()); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	l.Data, l.Extensions = r.bytes(), r.bytes()
	return l
}

// replay applies one payload to the image. A payload with a good checksum that
// makes no sense was written so: that is corruption too.
func (m *image) replay(payload []byte) error {
	r := &reader{b: payload}
	for len(r.b) > 0 && !r.bad {
		switch op := r.u8(); op {
		case opEntry:
			if l := r.entry(); !r.bad {
				if err := m.add(l); err != nil {
					return err
				}
			}
		case opSet:
			key, val := string(r.bytes()), r.bytes()
			if !r.bad {
				m.set(key, val)
			}
		case opDelete:
			lo, hi := r.u64(), r.u64()
			if !r.bad {
				if err := m.remove(lo, hi); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("unknown operation %d", op)
		}
	}
	if r.bad {
		return errors.New("operation cut short")
	}
	return nil
}
