package wire

import (
	"encoding/binary"

	"hapair/mirror/state"
)

// reader takes fields off the front of b. After the first that is missing or
// impossible, err is set and every further field is zero.
type reader struct {
	b      []byte
	reason error // what err wraps
	err    error
}

// take returns the next n bytes; n is at most 64 KiB by the types it comes from.
func (r *reader) take(n int, what string) []byte {
	if r.err == nil && len(r.b) < n {
		r.err = refuse(r.reason, "ends inside %s: %d bytes left, needs %d", what, len(r.b), n)
	}
	if r.err != nil {
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
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

func (r *reader) u32(what string) uint32 {
	if b := r.take(4, what); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64(what string) uint64 {
	if b := r.take(8, what); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// bits reads a byte of which only the lowest len(into) may be set, one for
// each of into.
func (r *reader) bits(what string, into ...*bool) {
	b := r.u8(what)
	known := byte(1)<<len(into) - 1
	if r.err == nil && b > known {
		r.err = refuse(r.reason, "%s are %#x, known are %#x", what, b, known)
	}
	for i, bit := range into {
		*bit = b&(1<<i) != 0
	}
}

func (r *reader) name(what string) string {
	n := int(r.u8(what))
	if r.err == nil && n > MaxNameBytes {
		r.err = refuse(r.reason, "name of the %s has %d bytes, limit %d", what, n, MaxNameBytes)
	}
	return string(r.take(n, what))
}

func (r *reader) record(rec *Record) {
	rec.Token, rec.Tenure = r.u64("token"), r.u64("tenure")
	rec.Primary = r.name("primary")
	n := int(r.u8("number of nodes in sync"))
	if r.err == nil && n > MaxMembers {
		r.err = refuse(r.reason, "%d nodes in sync, limit %d", n, MaxMembers)
	}
	for i := 0; i < n && r.err == nil; i++ {
		rec.InSync = append(rec.InSync, r.name("node in sync"))
	}
}

func (r *reader) volumes(h *HelloBody) {
	n := int(r.u16("number of volumes"))
	if r.err == nil && n > MaxVolumes {
		r.err = refuse(r.reason, "%d volumes, limit %d", n, MaxVolumes)
	}
	for i := 0; i < n && r.err == nil; i++ {
		size := int(r.u16("length of a volume"))
		if r.err == nil && size < volumeBytes {
			r.err = refuse(r.reason, "volume of %d bytes, needs at least %d", size, volumeBytes)
		}
		one := reader{b: r.take(size, "volume"), reason: r.reason, err: r.err}
		h.Volumes = append(h.Volumes, one.volume())
		r.err = one.err
	}
}

func (r *reader) volume() (v HelloVolume) {
	v.Number = r.u16("volume number")
	v.SizeBytes = int64(r.u64("volume size"))
	v.LogicalBlockBytes = r.u32("logical block")
	v.Disk = state.Disk(r.u8("disk state"))
	r.bits("volume bits", &v.AssumeClean, &v.FullSync)
	for i := range v.Gen {
		v.Gen[i] = r.u64("generation")
	}
	v.DirtyBlocks = r.u64("dirty blocks")
	return v
}
