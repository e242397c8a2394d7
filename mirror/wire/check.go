package wire

import (
	"math"

	"hapair/mirror/block"
)

// allowed is what one kind of message may carry.
type allowed struct {
	flags              Flags
	payloadMin         int
	payloadMax         int
	volume, rng, state bool // Volume, Offset and Length, Status may be other than zero
}

// rules by kind. Kinds that the pairing of the engine gives more fields later
// are listed with room for them (SyncStart and its like).
var rules = [...]allowed{
	Hello:       {payloadMin: 1, payloadMax: MaxHelloBytes},
	Bitmap:      {payloadMin: 1, payloadMax: MaxPayloadBytes, volume: true, rng: true},
	BitmapDone:  {payloadMax: MaxControlBytes, volume: true, rng: true},
	Write:       {flags: FUA | Resync | Memory | Ordered, payloadMin: block.SectorBytes, payloadMax: MaxPayloadBytes, volume: true, rng: true},
	WriteZeroes: {flags: FUA | Resync | NoUnmap | Memory | Ordered, volume: true, rng: true},
	Discard:     {flags: FUA | Resync | NoUnmap | Memory | Ordered, volume: true, rng: true},
	Flush:       {flags: FUA | Resync | Ordered, volume: true},
	Ack:         {flags: FUA | Resync | NoUnmap | Memory, volume: true, rng: true, state: true},
	SyncStart:   {flags: Resync, payloadMax: MaxControlBytes, volume: true, rng: true},
	SyncDone:    {flags: Resync, payloadMax: MaxHelloBytes, volume: true, rng: true},
	InSync:      {payloadMin: 1, payloadMax: MaxRecordBytes},
	State:       {payloadMin: 1, payloadMax: MaxHelloBytes},
	Refuse:      {payloadMax: MaxTextBytes, state: true},
	Ping:        {rng: true},
	Pong:        {rng: true},
	Read:        {volume: true, rng: true},
	Data:        {payloadMin: block.SectorBytes, payloadMax: MaxPayloadBytes, volume: true, rng: true},
	Verify:      {volume: true, rng: true},
	Verified:    {payloadMax: MaxVerifyBytes / VerifyBlockBytes * DigestBytes, state: true},
}

// Check judges the fields of a message against its kind; payload is the number
// of bytes that come with it. nil means it may be handled; an error wraps
// ErrKind, ErrTooLong or ErrField. Whether the range lies inside the volume,
// and whether the message fits the state, only the receiver knows.
//
// A status unknown here passes: a later release may have it, and it is
// not OK either way. An unknown flag does not: it may change what is asked.
func Check(m *Message, payload int) error {
	if !m.Kind.Known() {
		return refuse(ErrKind, "kind %d, this release knows 1 to %d", uint8(m.Kind), uint8(lastKind))
	}
	r := &rules[m.Kind]
	switch {
	case payload > r.payloadMax && r.payloadMax == 0:
		return refuse(ErrField, "%s with %d bytes of payload, takes none", m.Kind, payload)
	case payload > r.payloadMax:
		return refuse(ErrTooLong, "%s with %d bytes, limit %d", m.Kind, payload, r.payloadMax)
	case payload < r.payloadMin:
		return refuse(ErrField, "%s with %d bytes of payload, needs at least %d", m.Kind, payload, r.payloadMin)
	case m.Flags&^r.flags != 0:
		return refuse(ErrField, "%s with flags %#x, knows %#x", m.Kind, uint8(m.Flags), uint8(r.flags))
	case m.Volume != 0 && !r.volume:
		return refuse(ErrField, "%s with volume %d, concerns the whole resource", m.Kind, m.Volume)
	case m.Status != OK && !r.state:
		return refuse(ErrField, "%s with status %d, carries none", m.Kind, uint16(m.Status))
	case (m.Offset != 0 || m.Length != 0) && !r.rng:
		return refuse(ErrField, "%s with offset %d and length %d, carries none", m.Kind, m.Offset, m.Length)
	case (m.Kind == Write || m.Kind == Data) && m.Length != uint64(payload):
		return refuse(ErrField, "%s of %d bytes with %d bytes of payload", m.Kind, m.Length, payload)
	case m.Kind == Read && m.Length > MaxPayloadBytes:
		return refuse(ErrTooLong, "Read of %d bytes, limit %d", m.Length, MaxPayloadBytes)
	case m.Kind == Verified && payload%DigestBytes != 0:
		return refuse(ErrField, "Verified with %d bytes of payload, must be whole digests of %d", payload, DigestBytes)
	case m.Kind == Verified && m.Status != OK && payload > 0:
		return refuse(ErrField, "Verified with status %d and %d bytes of payload", uint16(m.Status), payload)
	case m.Kind == Verify && (m.Offset%VerifyBlockBytes != 0 || m.Length > MaxVerifyBytes):
		return refuse(ErrField, "Verify of %d bytes at %d, must begin at a block of %d and have at most %d", m.Length, m.Offset, VerifyBlockBytes, MaxVerifyBytes)
	case m.Kind.HasBlocks():
		return checkRange(m)
	}
	return nil
}

// checkRange wants whole sectors and an end that an int64 can hold.
func checkRange(m *Message) error {
	switch {
	case m.Length == 0:
		return refuse(ErrField, "%s of nothing at offset %d", m.Kind, m.Offset)
	case m.Offset%block.SectorBytes != 0 || m.Length%block.SectorBytes != 0:
		return refuse(ErrField, "%s of %d bytes at %d, must be whole sectors of %d bytes", m.Kind, m.Length, m.Offset, block.SectorBytes)
	case m.Offset > math.MaxInt64 || m.Length > math.MaxInt64-m.Offset:
		return refuse(ErrField, "%s of %d bytes at %d reaches past 2^63", m.Kind, m.Length, m.Offset)
	}
	return nil
}
