package meta

import (
	"encoding/binary"
	"fmt"

	"hapair/mirror/actlog"
)

// Payload of an activity log block, little-endian:
//
//	 0  slots u32   4  contextStart u32   8  updates u16   10  context u16
//	12  updates: slot u16, extent u32; then the context: extent u32 each
//
// The transaction's number is the header's index; 0 is a block never written.
const activityHead = 12

const updateBytes = 6

// activityMax fits a block: 12 + 64*6 + 900*4 = 3996 of 4048 bytes.
const activityMax = activityHead + actlog.MaxUpdates*updateBytes + actlog.ContextLen*4

var _ [payloadMax - activityMax]struct{}

// encodeActivity writes a transaction into block. An empty transaction with
// number 0 is a block of a new ring. The error is that of a transaction no Log
// of so many slots builds.
func encodeActivity(block []byte, device UUID, slots int, tx actlog.Transaction) error {
	if len(tx.Updates) > actlog.MaxUpdates || len(tx.Context) > actlog.ContextLen {
		return fmt.Errorf("transaction %d with %d updates and %d slots of context does not fit a block",
			tx.Number, len(tx.Updates), len(tx.Context))
	}
	le := binary.LittleEndian
	p := block[headerBytes:]
	le.PutUint32(p, uint32(slots))
	le.PutUint32(p[4:], uint32(tx.ContextStart))
	le.PutUint16(p[8:], uint16(len(tx.Updates)))
	le.PutUint16(p[10:], uint16(len(tx.Context)))
	at := activityHead
	for _, u := range tx.Updates {
		le.PutUint16(p[at:], u.Slot)
		le.PutUint32(p[at+2:], u.Extent)
		at += updateBytes
	}
	for _, extent := range tx.Context {
		le.PutUint32(p[at:], extent)
		at += 4
	}
	seal(block, header{kind: typeActivity, device: device, index: tx.Number}, at)
	return nil
}

// decodeActivity reads a block of the ring of a log of so many slots. A block
// never written is a transaction with number 0.
func decodeActivity(block []byte, slots int) (UUID, actlog.Transaction, error) {
	var tx actlog.Transaction
	h, p, err := unseal(block, typeActivity)
	if err != nil {
		return h.device, tx, err
	}
	if len(p) < activityHead {
		return h.device, tx, fmt.Errorf("%w: activity log block of %d bytes", ErrMalformed, len(p))
	}
	le := binary.LittleEndian
	if n := le.Uint32(p); n != uint32(slots) {
		return h.device, tx, fmt.Errorf("%w: activity log block is of a log of %d slots, the superblock has %d", ErrMalformed, n, slots)
	}
	updates, context := int(le.Uint16(p[8:])), int(le.Uint16(p[10:]))
	if updates > actlog.MaxUpdates || context > actlog.ContextLen || len(p) != activityHead+updates*updateBytes+context*4 {
		return h.device, tx, fmt.Errorf("%w: activity log block of %d bytes with %d updates and %d slots of context",
			ErrMalformed, len(p), updates, context)
	}
	tx.Number = h.index
	tx.ContextStart = int(le.Uint32(p[4:]))
	p = p[activityHead:]
	for range updates {
		tx.Updates = append(tx.Updates, actlog.Update{Slot: le.Uint16(p), Extent: le.Uint32(p[2:])})
		p = p[updateBytes:]
	}
	tx.Context = make([]uint32, context)
	for i := range tx.Context {
		tx.Context[i] = le.Uint32(p[4*i:])
	}
	return h.device, tx, nil
}
