package wire

import (
	"encoding/binary"

	"hapair/mirror/state"
)

// A Hello ends with sections, each of them something that not every release
// says: one release reads what it knows and skips the rest.
//
//	2  tag, above that of the section before
//	2  length of what follows
//	   its bytes; those beyond what is known are of a later release, and skipped
type tag uint16

// The tags. ONLY APPEND. A section that says what its absence says is left out.
const (
	_           tag = iota
	tagRelease      // a name, see HelloBody.Release
	tagProtocol     // one byte, its letter; without it, and for a letter that is not known, C
	tagSplit        // see appendSplit
	tagResize       // see resize.go
)

// appendSections appends what h says in sections.
func appendSections(dst []byte, h *HelloBody) []byte {
	if h.Release != "" {
		dst = appendSection(dst, tagRelease, appendName(nil, h.Release))
	}
	if h.Protocol != state.ProtocolC {
		dst = appendSection(dst, tagProtocol, []byte(h.Protocol.String()))
	}
	if h.Split != nil {
		dst = appendSection(dst, tagSplit, appendSplit(nil, h.Split))
	}
	if tellsResize(h) {
		dst = appendSection(dst, tagResize, appendResize(nil, h))
	}
	return dst
}

// appendSection appends one section; data has at most 64 KiB, as all of a
// Hello has.
func appendSection(dst []byte, t tag, data []byte) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(t))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(data)))
	return append(dst, data...)
}

// sections reads to the end.
func (r *reader) sections(h *HelloBody) {
	for last := tag(0); r.err == nil && len(r.b) > 0; {
		t := tag(r.u16("tag of a section"))
		if r.err == nil && t <= last {
			r.err = refuse(r.reason, "section %d after section %d, must be sorted without doubles", t, last)
		}
		last = t
		one := reader{b: r.take(int(r.u16("length of a section")), "section"), reason: r.reason, err: r.err}
		one.section(t, h)
		r.err = one.err
	}
}

// section reads one section into h.
func (r *reader) section(t tag, h *HelloBody) {
	switch t {
	case tagRelease:
		h.Release = r.name("release")
	case tagResize:
		r.resize(h)
	case tagProtocol:
		h.Protocol = state.ParseProtocol(string(r.take(1, "protocol")))
	case tagSplit:
		h.Split = r.split()
	default: // of a later release
	}
}
