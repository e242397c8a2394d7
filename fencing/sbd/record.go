package sbd

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

// The disk: blocks of 4 KiB, each with one record in its first 512 bytes, so that a
// record is one sector of any disk. Block 0 is the head; slot i, of the node that is
// the i-th in the head, is block 1+2i, which that node writes, and 2+2i, the mail,
// which its peer writes and it takes away when it has booted.
const (
	blockBytes  = 4096
	recordBytes = 512
	slots       = 2
	blocks      = 1 + 2*slots
	areaBytes   = 16 * blockBytes // ours, with room

	nameMax = 63
	whyMax  = 160
	version = 1
)

// A record: magic 8, version 2, kind 1, state 1, disk 16, what is of the kind, and
// the crc32c of all that in the last four bytes. Numbers are little-endian, a text is a
// byte of length and as many bytes.
const (
	kindHead = 1 + iota
	kindSlot
	kindMail
)

const (
	offVersion = 8
	offKind    = 10
	offState   = 11
	offDisk    = 12
	offBody    = 28
	offSum     = recordBytes - 4
)

var magic = []byte("HAPAIRPP")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of records.
var (
	ErrBlank   = errors.New("nothing is written there")
	ErrForeign = errors.New("something else is written there")
	ErrDamaged = errors.New("it is damaged")
	ErrNewer   = errors.New("it is of a later release")
)

// ID names a disk, or a life of a node.
type ID [16]byte

// String returns it in hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Name makes an ID of what the kernel calls a boot, or a machine.
func Name(text string) (id ID) {
	sum := sha256.Sum256([]byte(text))
	copy(id[:], sum[:])
	return id
}

// Head says whose a disk is.
type Head struct {
	Disk    ID
	Cluster string
	Nodes   [slots]string
	Made    time.Time
}

// Slot is what a node says of itself. While it is Armed in a Life, the machine of
// that life is reset Timeout after the last pet, and petted only by what was read, or
// heard of the peer, at most Valid ago.
type Slot struct {
	Disk    ID
	Node    string
	Armed   bool
	Life    ID
	Machine ID            // zero: not known
	Timeout time.Duration // in milliseconds
	Valid   time.Duration // likewise
	Seq     uint64        // grows with each writing
	At      time.Time     // by the node's clock: for people
}

// Word is what a node that has written a slot tells the other one: its life, on which
// machine and by which disk, and the number of the slot. It has 80 bytes at most.
func (s *Slot) Word() string {
	return s.Life.String() + "." + s.place() + "." + strconv.FormatUint(s.Seq, 36)
}

// place is a machine and a disk in one.
func (s *Slot) place() string {
	return Name("machine " + s.Machine.String() + " disk " + s.Disk.String()).String()
}

// told is a Word taken apart.
type told struct {
	life, place string
	seq         uint64
}

// hear takes a word apart; ok is false for one that another release has given.
func hear(word string) (t told, ok bool) {
	parts := strings.Split(word, ".")
	if len(parts) != 3 {
		return t, false
	}
	seq, err := strconv.ParseUint(parts[2], 36, 64)
	return told{parts[0], parts[1], seq}, err == nil
}

// fits reports whether a slot is of the life that gave the word, not older.
func (s *Slot) fits(t told) bool {
	return s.Life.String() == t.life && s.place() == t.place && s.Seq >= t.seq
}

// later reports whether a slot is of a later life of the machine that gave the word: the
// life that has given it is over. A node writes its slot before it gives its word.
func (s *Slot) later(t told) bool {
	return s.Machine != ID{} && s.Life.String() != t.life && s.place() == t.place && s.Seq > t.seq
}

// Mail is for a node: a Pill, or nothing.
type Mail struct {
	Disk ID
	Pill bool
	To   ID // the life that is to end
	From string
	Why  string
	Seq  uint64 // tells two of a writer apart
	At   time.Time
}

// writer lays a record out.
type writer struct {
	b [recordBytes]byte
	n int
}

func newWriter(kind, state byte, disk ID) *writer {
	w := &writer{n: offBody}
	copy(w.b[:], magic)
	binary.LittleEndian.PutUint16(w.b[offVersion:], version)
	w.b[offKind], w.b[offState] = kind, state
	copy(w.b[offDisk:], disk[:])
	return w
}

func (w *writer) raw(p []byte)     { w.n += copy(w.b[w.n:offSum], p) }
func (w *writer) number(v uint64)  { w.raw(binary.LittleEndian.AppendUint64(nil, v)) }
func (w *writer) time(t time.Time) { w.number(uint64(t.Unix())) }
func (w *writer) text(s string, m int) {
	w.raw(append([]byte{byte(min(len(s), m))}, s[:min(len(s), m)]...))
}

func (w *writer) end() []byte {
	binary.LittleEndian.PutUint32(w.b[offSum:], crc32.Checksum(w.b[:offSum], castagnoli))
	return w.b[:]
}

func (h *Head) encode() []byte {
	w := newWriter(kindHead, 0, h.Disk)
	w.text(h.Cluster, nameMax)
	for _, n := range h.Nodes {
		w.text(n, nameMax)
	}
	w.time(h.Made)
	return w.end()
}

func (s *Slot) encode() []byte {
	w := newWriter(kindSlot, flag(s.Armed), s.Disk)
	w.raw(s.Life[:])
	w.raw(s.Machine[:])
	w.number(uint64(s.Timeout.Milliseconds()))
	w.number(uint64(s.Valid.Milliseconds()))
	w.number(s.Seq)
	w.time(s.At)
	w.text(s.Node, nameMax)
	return w.end()
}

func (m *Mail) encode() []byte {
	w := newWriter(kindMail, flag(m.Pill), m.Disk)
	w.raw(m.To[:])
	w.number(m.Seq)
	w.time(m.At)
	w.text(m.From, nameMax)
	w.text(m.Why, whyMax)
	return w.end()
}

func flag(on bool) byte {
	if on {
		return 1
	}
	return 0
}

// reader takes a record apart. Once bad, it stays so.
type reader struct {
	b   []byte
	n   int
	bad bool
}

// open judges what all records have in common.
func open(b []byte, kind byte) (r *reader, state byte, disk ID, err error) {
	switch {
	case len(b) < recordBytes:
		return nil, 0, disk, fmt.Errorf("%w: %d bytes", ErrDamaged, len(b))
	case len(bytes.Trim(b[:recordBytes], "\x00")) == 0:
		return nil, 0, disk, ErrBlank
	case !bytes.HasPrefix(b, magic):
		return nil, 0, disk, fmt.Errorf("%w: it begins with %q", ErrForeign, b[:len(magic)])
	case crc32.Checksum(b[:offSum], castagnoli) != binary.LittleEndian.Uint32(b[offSum:]):
		return nil, 0, disk, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	case binary.LittleEndian.Uint16(b[offVersion:]) != version:
		return nil, 0, disk, fmt.Errorf("%w: version %d, this one knows %d", ErrNewer, binary.LittleEndian.Uint16(b[offVersion:]), version)
	case b[offKind] != kind || b[offState] > 1:
		return nil, 0, disk, fmt.Errorf("%w: kind %d, state %d, wanted kind %d", ErrDamaged, b[offKind], b[offState], kind)
	}
	copy(disk[:], b[offDisk:])
	return &reader{b: b[:offSum], n: offBody}, b[offState], disk, nil
}

func (r *reader) raw(n int) []byte {
	if r.bad = r.bad || r.n+n > len(r.b); r.bad {
		return make([]byte, n)
	}
	r.n += n
	return r.b[r.n-n : r.n]
}

func (r *reader) number() uint64  { return binary.LittleEndian.Uint64(r.raw(8)) }
func (r *reader) time() time.Time { return time.Unix(int64(r.number()), 0).UTC() }

func (r *reader) text(most int) string {
	n := int(r.raw(1)[0])
	r.bad = r.bad || n > most
	if r.bad {
		return ""
	}
	return string(r.raw(n))
}

// millis reads a time of at most a day.
func (r *reader) millis() time.Duration {
	v := r.number()
	r.bad = r.bad || v > uint64(24*time.Hour/time.Millisecond)
	if r.bad {
		return 0
	}
	return time.Duration(v) * time.Millisecond
}

// end judges what is of the kind.
func (r *reader) end() error {
	if r.bad {
		return fmt.Errorf("%w: a field does not fit", ErrDamaged)
	}
	return nil
}

func decodeHead(b []byte) (h Head, err error) {
	r, _, disk, err := open(b, kindHead)
	if err != nil {
		return h, err
	}
	h.Disk, h.Cluster = disk, r.text(nameMax)
	for i := range h.Nodes {
		h.Nodes[i] = r.text(nameMax)
	}
	h.Made = r.time()
	return h, r.end()
}

func decodeSlot(b []byte) (s Slot, err error) {
	r, state, disk, err := open(b, kindSlot)
	if err != nil {
		return s, err
	}
	s.Disk, s.Armed, s.Life = disk, state == 1, ID(r.raw(len(ID{})))
	s.Machine = ID(r.raw(len(ID{})))
	s.Timeout, s.Valid = r.millis(), r.millis()
	s.Seq, s.At = r.number(), r.time()
	s.Node = r.text(nameMax)
	return s, r.end()
}

func decodeMail(b []byte) (m Mail, err error) {
	r, state, disk, err := open(b, kindMail)
	if err != nil {
		return m, err
	}
	m.Disk, m.Pill, m.To = disk, state == 1, ID(r.raw(len(ID{})))
	m.Seq, m.At = r.number(), r.time()
	m.From, m.Why = r.text(nameMax), r.text(whyMax)
	return m, r.end()
}
