package peering

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Versions of the protocol after authentication that this release speaks.
const (
	MinVersion = 1
	MaxVersion = 1
)

// hello is the first thing a dialing node says once it is trusted. Names
// are one byte of length and their bytes; numbers are little-endian:
//
//	1 format, 1 | 2 min version | 2 max version | 8 incarnation |
//	cluster | from | to | path | purpose | machine, not told by release 0
//
// Bytes after these are a later release's and skipped.
type hello struct {
	min, max    uint16
	incarnation uint64
	cluster     string
	from, to    string
	path        string
	purpose     string
	machine     string // the identity of who dials, "" where it is not told
}

// answer is what the accepting node replies:
//
//	1 format, 1 | 1 Code | 2 version | 8 incarnation | node | 2+text |
//	machine, not told by release 0
type answer struct {
	code        Code
	version     uint16
	incarnation uint64
	node        string
	text        string
	machine     string
}

const helloFormat = 1

func (h *hello) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, helloFormat)
	b = le.AppendUint16(b, h.min)
	b = le.AppendUint16(b, h.max)
	b = le.AppendUint64(b, h.incarnation)
	for _, s := range []string{h.cluster, h.from, h.to, h.path, h.purpose} {
		b = append(append(b, byte(len(s))), s...)
	}
	return appendMachine(b, h.machine)
}

func appendMachine(b []byte, machine string) []byte {
	if machine == "" {
		return b
	}
	return append(append(b, byte(len(machine))), machine...)
}

func parseHello(b []byte) (*hello, error) {
	r := reader{b: b}
	r.format("hello")
	h := &hello{min: r.u16("lowest version"), max: r.u16("highest version"), incarnation: r.u64("incarnation")}
	h.cluster, h.from, h.to = r.name("cluster", MaxNameBytes), r.name("from", MaxNameBytes), r.name("to", MaxNameBytes)
	h.path, h.purpose = r.name("path", MaxNameBytes), r.name("purpose", MaxPurposeBytes)
	h.machine = r.machine()
	if r.err != nil {
		return nil, r.err
	}
	if h.min > h.max {
		return nil, fmt.Errorf("hello with versions %d to %d: %w", h.min, h.max, ErrProtocol)
	}
	for what, name := range map[string]string{"cluster": h.cluster, "node": h.from, "path": h.path} {
		if err := checkName(what, name); err != nil {
			return nil, fmt.Errorf("hello: %w: %w", err, ErrProtocol)
		}
	}
	return h, checkPurpose(h.purpose)
}

func checkPurpose(purpose string) error {
	if purpose == "" || len(purpose) > MaxPurposeBytes {
		return fmt.Errorf("purpose of %d bytes, must have 1 to %d: %w", len(purpose), MaxPurposeBytes, ErrProtocol)
	}
	if i := strings.IndexFunc(purpose, func(r rune) bool { return r <= ' ' || r > '~' }); i >= 0 {
		return fmt.Errorf("purpose %q: character %d is not printable ASCII: %w", purpose, i, ErrProtocol)
	}
	return nil
}

func (a *answer) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, helloFormat, byte(a.code))
	b = le.AppendUint16(b, a.version)
	b = le.AppendUint64(b, a.incarnation)
	b = append(append(b, byte(len(a.node))), a.node...)
	text := a.text[:min(len(a.text), MaxTextBytes)]
	return appendMachine(append(le.AppendUint16(b, uint16(len(text))), text...), a.machine)
}

func parseAnswer(b []byte) (*answer, error) {
	r := reader{b: b}
	r.format("answer")
	a := &answer{code: Code(r.u8("code")), version: r.u16("version"), incarnation: r.u64("incarnation")}
	a.node = r.name("node", MaxNameBytes)
	n := int(r.u16("length of the text"))
	if r.err == nil && n > MaxTextBytes {
		return nil, fmt.Errorf("answer with a text of %d bytes, limit %d: %w", n, MaxTextBytes, ErrProtocol)
	}
	a.text = strings.ToValidUTF8(string(r.take(n, "text")), "?")
	a.machine = r.machine()
	if r.err == nil && a.code == Accepted && (a.version < MinVersion || a.version > MaxVersion) {
		return nil, fmt.Errorf("answer with version %d, offered were %d to %d: %w", a.version, MinVersion, MaxVersion, ErrProtocol)
	}
	return a, r.err
}

// reader takes fields off the front of b; the first that is missing or too
// long sets err, and every further one is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int, what string) []byte {
	if r.err == nil && len(r.b) < n {
		r.err = fmt.Errorf("ends inside %s, %d bytes left, needs %d: %w", what, len(r.b), n, ErrProtocol)
	}
	if r.err != nil {
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) format(what string) {
	if f := r.u8("format"); r.err == nil && f != helloFormat {
		r.err = fmt.Errorf("%s in format %d, this release reads %d: %w", what, f, helloFormat, ErrProtocol)
	}
}

// machine is at the end, or not there.
func (r *reader) machine() string {
	if r.err != nil || len(r.b) == 0 {
		return ""
	}
	return r.name("machine", MaxNameBytes)
}

func (r *reader) u8(what string) uint8 {
	if b := r.take(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16(what string) uint16 {
	if b := r.take(2, what); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u64(what string) uint64 {
	if b := r.take(8, what); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) name(what string, limit int) string {
	n := int(r.u8(what))
	if r.err == nil && n > limit {
		r.err = fmt.Errorf("%s of %d bytes, limit %d: %w", what, n, limit, ErrProtocol)
	}
	return string(r.take(n, what))
}
