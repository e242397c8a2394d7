package story

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
)

// Bounds of one entry, in bytes.
const (
	MaxText  = 4 << 10
	MaxEntry = 64 << 10 // its form on disk, without the frame: text and fields, six times as long in JSON at most
	maxName  = 63
)

// Entry is one thing that happened, as the node saw it that it happened on.
// Fields are only ever added, and left out while they say nothing.
type Entry struct {
	Stamp    Stamp             `json:"h"`
	Wall     int64             `json:"w"` // nanoseconds since 1970 by that node's clock
	Node     string            `json:"n"`
	Life     uint64            `json:"l"` // one run of its agent; random, at most 53 bits
	Seq      uint64            `json:"s"` // in that life, from 1, without holes
	Kind     string            `json:"k"`
	Resource string            `json:"r,omitempty"`
	Text     string            `json:"t"`
	Fields   map[string]string `json:"f,omitempty"`
	// Skew is how far its clock was ahead of that of the node which keeps the
	// entry, in nanoseconds, when it came here; 0 when not known, and for its own.
	Skew int64 `json:"o,omitempty"`
}

// Time is when it happened, by the clock of its node.
func (e *Entry) Time() time.Time { return time.Unix(0, e.Wall).UTC() }

// Here is when it happened, by the clock of the node that keeps it.
func (e *Entry) Here() time.Time { return time.Unix(0, e.Wall-e.Skew).UTC() }

// Clip makes an entry fit its bounds: texts are cut, then the fields are left
// out.
func (e *Entry) Clip() {
	e.Text, e.Kind, e.Resource = clip(e.Text, MaxText), clip(e.Kind, maxName), clip(e.Resource, maxName)
	if size := e.fieldBytes(); size > MaxText {
		e.Fields = map[string]string{"left_out": fmt.Sprintf("%d fields of %d bytes", len(e.Fields), size)}
	}
}

func (e *Entry) fieldBytes() (n int) {
	for k, v := range e.Fields {
		n += len(k) + len(v)
	}
	return n
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

// Check says what is wrong with an entry that came from elsewhere.
func (e *Entry) Check() error {
	switch {
	case e.Node == "" || len(e.Node) > maxName:
		return fmt.Errorf("%w: node name of %d bytes", ErrEntry, len(e.Node))
	case e.Seq == 0 || e.Life == 0:
		return fmt.Errorf("%w: %s, life %d, number %d", ErrEntry, e.Node, e.Life, e.Seq)
	case e.Stamp > MaxStamp:
		return fmt.Errorf("%w: %s/%d of the year %d", ErrEntry, e.Node, e.Seq, e.Stamp.Time().Year())
	case len(e.Text) > MaxText || e.fieldBytes() > MaxText || len(e.Kind) > maxName || len(e.Resource) > maxName:
		return fmt.Errorf("%w: %s/%d with a text of %d bytes and fields of %d, limit %d", ErrEntry, e.Node, e.Seq, len(e.Text), e.fieldBytes(), MaxText)
	}
	return nil
}

// Errors of the form on disk.
var (
	ErrEntry   = errors.New("no entry of a record")
	ErrTorn    = errors.New("the record ends inside an entry, or is damaged there")
	ErrVersion = errors.New("a record of another version")
)

// A file of a record is a header, then frames to the end of the file:
//
//	"hapair-record" | version u16 | 0 | crc32c u32 of what precedes
//	length u32 | crc32c u32 of the JSON | JSON
const (
	fileMagic   = "hapair-record"
	fileVersion = 1
	// HeaderBytes is the length of the header.
	HeaderBytes = len(fileMagic) + 2 + 1 + 4
	frameBytes  = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header begins a file.
func Header() []byte { return headerOf(fileVersion) }

func headerOf(version uint16) []byte {
	b := binary.LittleEndian.AppendUint16([]byte(fileMagic), version)
	b = append(b, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Append adds one entry to a file. It must be within its bounds: see
// [Entry.Clip].
func Append(b []byte, e *Entry) ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return b, fmt.Errorf("encode %s/%d: %w", e.Node, e.Seq, err)
	}
	if len(data) > MaxEntry {
		return b, fmt.Errorf("%w: %s/%d has %d bytes, limit %d", ErrEntry, e.Node, e.Seq, len(data), MaxEntry)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(data, castagnoli))
	return append(b, data...), nil
}

// Read returns the entries of a file, and how many of its bytes are whole. After
// a crash the rest is torn: then the error is ErrTorn, and the entries before it
// are good. Nothing behind a damaged entry is looked for.
func Read(b []byte) (entries []Entry, whole int, err error) {
	if len(b) < HeaderBytes {
		return nil, 0, fmt.Errorf("%w: %d bytes, the header has %d", ErrTorn, len(b), HeaderBytes)
	}
	if err := checkHeader(b[:HeaderBytes]); err != nil {
		return nil, 0, err
	}
	for whole = HeaderBytes; whole < len(b); {
		e, n, err := readFrame(b[whole:])
		if err != nil {
			return entries, whole, fmt.Errorf("at byte %d of %d: %w", whole, len(b), err)
		}
		entries = append(entries, e)
		whole += n
	}
	return entries, whole, nil
}

func checkHeader(b []byte) error {
	n := HeaderBytes - 4
	switch {
	case string(b[:len(fileMagic)]) != fileMagic || crc32.Checksum(b[:n], castagnoli) != binary.LittleEndian.Uint32(b[n:]):
		return fmt.Errorf("%w: the header", ErrTorn)
	case binary.LittleEndian.Uint16(b[len(fileMagic):]) != fileVersion:
		return fmt.Errorf("%w: %d, this release reads %d", ErrVersion, binary.LittleEndian.Uint16(b[len(fileMagic):]), fileVersion)
	}
	return nil
}

func readFrame(b []byte) (e Entry, n int, err error) {
	if len(b) < frameBytes {
		return e, 0, ErrTorn
	}
	size := int(binary.LittleEndian.Uint32(b))
	if size > MaxEntry || len(b) < frameBytes+size {
		return e, 0, ErrTorn
	}
	data := b[frameBytes : frameBytes+size]
	if crc32.Checksum(data, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return e, 0, ErrTorn
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return Entry{}, 0, fmt.Errorf("%w: %w", ErrTorn, err)
	}
	if err := e.Check(); err != nil {
		return Entry{}, 0, fmt.Errorf("%w: %w", ErrTorn, err)
	}
	return e, frameBytes + size, nil
}
