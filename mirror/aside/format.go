package aside

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// An image is two files. VOLUME.img is sparse: a block that was saved lies where it
// lay on the disk. VOLUME.idx says which were: 4 KiB blocks, the first the header,
// the second the state, which is rewritten in place, then one for each batch of
// blocks, written when the blocks themselves are durable. Little-endian:
//
//	 0  magic "hapairSB"     8  crc32c of the rest, u32   12  format u16   14  kind u16
//	16  id of the image, 8   24  number u64               32  count u32    36  zero u32
//	40  contents: JSON of count bytes, or count times: u64 number of the block, u32 its crc32c
const (
	frameBytes = 40
	format     = 1
	magic      = "hapairSB"

	kindHeader uint16 = 1
	kindState  uint16 = 2
	kindBatch  uint16 = 3

	// BlockBytes is the unit in which is saved, and that of the index.
	BlockBytes = 4096
	entryBytes = 12
	// batchMax is how many blocks are made durable together.
	batchMax = (BlockBytes - frameBytes) / entryBytes
	jsonMax  = BlockBytes - frameBytes
)

// ErrDamaged: an image is not as it was written.
var ErrDamaged = errors.New("the image is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is what an image is of. It does not change.
type Header struct {
	Resource    string     `json:"resource"`
	Volume      uint16     `json:"volume"`
	Node        string     `json:"node"`
	Peer        string     `json:"peer"`
	Device      string     `json:"device"` // UUID of the metadata of the disk
	SizeBytes   int64      `json:"size_bytes"`
	Taken       time.Time  `json:"taken"` // when the data were given up
	Generations [10]uint64 `json:"generations"`
	Disk        uint8      `json:"disk"`
	LastPrimary bool       `json:"last_primary"`
	FullSync    bool       `json:"full_sync"`
	Since       int64      `json:"since"` // as in the superblock
	Elder       bool       `json:"elder"`
}

// Phase is what an image goes through.
type Phase string

// The phases.
const (
	Keeping    Phase = "keeping"    // image and disk together are what was given up
	Incomplete Phase = "incomplete" // something was overwritten that is not in it
	Undoing    Phase = "undoing"    // it is being put back
	Undone     Phase = "undone"     // it was put back
)

// State is the phase and why.
type State struct {
	Phase Phase     `json:"phase"`
	Why   string    `json:"why,omitempty"`
	At    time.Time `json:"at"`
}

// frame is one block of the index.
type frame struct {
	kind   uint16
	id     uint64
	number uint64
	count  uint32
	body   []byte
}

// entry is one block that was saved.
type entry struct {
	block int64
	sum   uint32
}

// seal writes a frame into b, a whole block.
func (f *frame) seal(b []byte) {
	clear(b)
	le := binary.LittleEndian
	copy(b, magic)
	le.PutUint16(b[12:], format)
	le.PutUint16(b[14:], f.kind)
	le.PutUint64(b[16:], f.id)
	le.PutUint64(b[24:], f.number)
	le.PutUint32(b[32:], f.count)
	copy(b[frameBytes:], f.body)
	le.PutUint32(b[8:], crc32.Checksum(b[12:BlockBytes], castagnoli))
}

// unseal reads a block of the index; an error wraps ErrDamaged.
func unseal(b []byte) (frame, error) {
	le := binary.LittleEndian
	switch {
	case len(b) != BlockBytes || string(b[:8]) != magic:
		return frame{}, fmt.Errorf("%w: no block of an index", ErrDamaged)
	case le.Uint32(b[8:]) != crc32.Checksum(b[12:], castagnoli):
		return frame{}, fmt.Errorf("%w: a checksum does not match", ErrDamaged)
	case le.Uint16(b[12:]) != format:
		return frame{}, fmt.Errorf("%w: format %d, this release reads %d", ErrDamaged, le.Uint16(b[12:]), format)
	}
	f := frame{kind: le.Uint16(b[14:]), id: le.Uint64(b[16:]), number: le.Uint64(b[24:]), count: le.Uint32(b[32:]), body: b[frameBytes:]}
	limit := uint32(jsonMax)
	if f.kind == kindBatch {
		limit = batchMax
	}
	if f.count > limit || f.kind < kindHeader || f.kind > kindBatch {
		return frame{}, fmt.Errorf("%w: kind %d of %d, limit %d", ErrDamaged, f.kind, f.count, limit)
	}
	return f, nil
}

// sealJSON writes a header or a state.
func sealJSON(b []byte, kind uint16, id uint64, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("index of an image: %w", err)
	}
	if len(text) > jsonMax {
		return fmt.Errorf("index of an image: %d bytes, limit %d", len(text), jsonMax)
	}
	(&frame{kind: kind, id: id, count: uint32(len(text)), body: text}).seal(b)
	return nil
}

// json reads the contents of a frame of a kind.
func (f *frame) json(kind uint16, into any) error {
	if f.kind != kind {
		return fmt.Errorf("%w: kind %d, want %d", ErrDamaged, f.kind, kind)
	}
	if err := json.Unmarshal(f.body[:f.count], into); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// sealBatch writes the blocks of a batch.
func sealBatch(b []byte, id, number uint64, entries []entry) {
	body := make([]byte, 0, len(entries)*entryBytes)
	for _, e := range entries {
		body = binary.LittleEndian.AppendUint64(body, uint64(e.block))
		body = binary.LittleEndian.AppendUint32(body, e.sum)
	}
	(&frame{kind: kindBatch, id: id, number: number, count: uint32(len(entries)), body: body}).seal(b)
}

// entries reads the blocks of a batch on a volume of so many; a block that is not
// on it is damage.
func (f *frame) entries(blocks int64) ([]entry, error) {
	if f.kind != kindBatch {
		return nil, fmt.Errorf("%w: kind %d, want %d", ErrDamaged, f.kind, kindBatch)
	}
	out := make([]entry, f.count)
	for i := range out {
		at := f.body[i*entryBytes:]
		out[i] = entry{int64(binary.LittleEndian.Uint64(at)), binary.LittleEndian.Uint32(at[8:])}
		if out[i].block < 0 || out[i].block >= blocks {
			return nil, fmt.Errorf("%w: block %d of a volume of %d", ErrDamaged, out[i].block, blocks)
		}
	}
	return out, nil
}
