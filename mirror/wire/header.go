package wire

import (
	"encoding/binary"
	"hash/crc32"

	"hapair/mirror/block"
)

// The frame header. All numbers are little-endian.
//
//	 0  4  magic "HAPM"
//	 4  1  version of the frame format
//	 5  1  Kind
//	 6  1  Flags
//	 7  1  zero
//	 8  2  Volume
//	10  2  Status
//	12  4  bytes of payload that follow the header
//	16  8  ID
//	24  8  Token
//	32  8  Offset
//	40  8  Length
//	48  4  crc32c of the payload, 0 when there is none
//	52  8  zero
//	60  4  crc32c of bytes 0-59
//
// What is zero must be zero: a later release gives it a meaning only towards a
// peer that has said, in its Hello, that it knows that meaning.
const (
	// HeaderBytes is the length of the header of every frame.
	HeaderBytes = 64
	// Version of the frame format that this release writes.
	Version = 1
	// OldestVersion of the frame format that this release reads.
	OldestVersion = 1
	// MaxPayloadBytes bounds the payload of every frame.
	MaxPayloadBytes = block.MaxTransferBytes
	// MaxTextBytes bounds the text in a Refuse.
	MaxTextBytes = 1024
	// MaxControlBytes bounds the payload of every kind but Write, Data and Bitmap.
	MaxControlBytes = MaxHelloBytes

	magic = "HAPM"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the checksum of the protocol: crc32c (Castagnoli).
func Sum(b []byte) uint32 { return crc32.Update(0, castagnoli, b) }

// Payload is what a header says about the bytes that follow it.
type Payload struct {
	Bytes int    // [0, MaxPayloadBytes]
	Sum   uint32 // crc32c
}

// Check judges the payload that arrived; an error wraps ErrPayloadSum or
// ErrTruncated.
func (p Payload) Check(data []byte) error {
	if len(data) != p.Bytes {
		return refuse(ErrTruncated, "%d of %d bytes of payload", len(data), p.Bytes)
	}
	if sum := Sum(data); sum != p.Sum {
		return refuse(ErrPayloadSum, "header says %08x, the %d bytes have %08x", p.Sum, len(data), sum)
	}
	return nil
}

// EncodeHeader writes the header of m, whose payload is m.Data, into the first
// HeaderBytes of h. It refuses what a receiver would refuse. It allocates
// nothing unless it refuses.
func EncodeHeader(h []byte, m *Message) error {
	if err := Check(m, len(m.Data)); err != nil {
		return err
	}
	h = h[:HeaderBytes]
	copy(h, magic)
	h[4], h[5], h[6], h[7] = Version, byte(m.Kind), byte(m.Flags), 0
	le := binary.LittleEndian
	le.PutUint16(h[8:], m.Volume)
	le.PutUint16(h[10:], uint16(m.Status))
	le.PutUint32(h[12:], uint32(len(m.Data)))
	le.PutUint64(h[16:], m.ID)
	le.PutUint64(h[24:], m.Token)
	le.PutUint64(h[32:], m.Offset)
	le.PutUint64(h[40:], m.Length)
	le.PutUint32(h[48:], Sum(m.Data))
	le.PutUint64(h[52:], 0)
	le.PutUint32(h[60:], Sum(h[:60]))
	return nil
}

// DecodeHeader reads the first HeaderBytes of h into m (Data and Buffer
// become nil) and says what payload follows. Everything is judged before it is
// believed; an error wraps ErrTruncated, ErrMagic, ErrVersion, ErrHeaderSum,
// ErrTooLong, ErrKind or ErrField, and after one the stream has lost its
// frames and is of no more use. It allocates nothing unless it refuses.
func DecodeHeader(h []byte, m *Message) (Payload, error) {
	if err := judgeHeader(h); err != nil {
		return Payload{}, err
	}
	le := binary.LittleEndian
	bytes := le.Uint32(h[12:])
	if bytes > MaxPayloadBytes {
		return Payload{}, refuse(ErrTooLong, "%d bytes, limit %d", bytes, MaxPayloadBytes)
	}
	if h[7] != 0 || le.Uint64(h[52:]) != 0 {
		return Payload{}, refuse(ErrField, "bytes 7 and 52-59 of the header must be zero, found %02x and %x", h[7], h[52:60])
	}
	*m = Message{
		Kind:   Kind(h[5]),
		Flags:  Flags(h[6]),
		Volume: le.Uint16(h[8:]),
		Status: Status(le.Uint16(h[10:])),
		ID:     le.Uint64(h[16:]),
		Token:  le.Uint64(h[24:]),
		Offset: le.Uint64(h[32:]),
		Length: le.Uint64(h[40:]),
	}
	p := Payload{Bytes: int(bytes), Sum: le.Uint32(h[48:])}
	if p.Bytes == 0 && p.Sum != 0 {
		return Payload{}, refuse(ErrField, "checksum %08x of an empty payload, must be zero", p.Sum)
	}
	return p, Check(m, p.Bytes)
}

// judgeHeader decides whether h is a whole, undamaged header of a version this
// release reads. The version is judged before the checksum, so that a later
// format gets the right sentence.
func judgeHeader(h []byte) error {
	if len(h) < HeaderBytes {
		return refuse(ErrTruncated, "%d of %d bytes of header", len(h), HeaderBytes)
	}
	if string(h[:4]) != magic {
		return refuse(ErrMagic, "starts with %x, expected %x (%q)", h[:4], magic, magic)
	}
	if v := h[4]; v < OldestVersion || v > Version {
		return refuse(ErrVersion, "version %d, this release reads %d to %d", v, OldestVersion, Version)
	}
	if want, got := binary.LittleEndian.Uint32(h[60:]), Sum(h[:60]); want != got {
		return refuse(ErrHeaderSum, "header says %08x, its bytes have %08x", want, got)
	}
	return nil
}

// AppendFrame appends header and payload of m to dst.
func AppendFrame(dst []byte, m *Message) ([]byte, error) {
	n := len(dst)
	var h [HeaderBytes]byte
	dst = append(dst, h[:]...)
	if err := EncodeHeader(dst[n:], m); err != nil {
		return dst[:n], err
	}
	return append(dst, m.Data...), nil
}

// ParseFrame reads the frame at the start of b into m and returns its length.
// m.Data is part of b. Errors are those of DecodeHeader and Payload.Check.
func ParseFrame(b []byte, m *Message) (int, error) {
	p, err := DecodeHeader(b, m)
	if err != nil {
		return 0, err
	}
	rest := b[HeaderBytes:]
	if len(rest) < p.Bytes {
		return 0, refuse(ErrTruncated, "%d of %d bytes of payload", len(rest), p.Bytes)
	}
	m.Data = rest[:p.Bytes:p.Bytes]
	if err := p.Check(m.Data); err != nil {
		return 0, err
	}
	return HeaderBytes + p.Bytes, nil
}
