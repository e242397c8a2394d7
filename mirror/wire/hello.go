package wire

import (
	"encoding/binary"
	"math/bits"

	"hapair/mirror/state"
)

// Bounds of what a Hello and a Record may hold.
const (
	// MaxNameBytes bounds the names of resources and nodes.
	MaxNameBytes = 64
	// MaxVolumes bounds the volumes of one resource.
	MaxVolumes = 256
	// MaxMembers bounds the in-sync set of a Record.
	MaxMembers = 8
	// MaxRecordBytes bounds the encoding of a Record.
	MaxRecordBytes = 1024
	// MaxHelloBytes bounds the encoding of a Hello.
	MaxHelloBytes = 64 << 10

	volumeBytes     = 104 // of one volume, without its length
	minLogicalBlock = 512
	maxLogicalBlock = 4096
)

// Features of the protocol that a Hello tells of. ONLY APPEND.
const (
	// FeatureRead: the sender answers Read, and keeps the data for a Primary
	// whose own copy does not serve.
	FeatureRead uint64 = 1 << iota
	// FeatureVerify: the sender answers Verify, also as the target of a resync.
	FeatureVerify
	// FeatureResize: the sender grows its copy when asked, and brings copies of two
	// sizes to one.
	FeatureResize
	// FeatureProtocols: the sender takes Memory and Ordered, and says by which
	// protocol its resource is replicated.
	FeatureProtocols
)

// HelloBody is the payload of Hello and State: who the sender is and what its
// copy is worth. Volumes are sorted by number, without doubles.
type HelloBody struct {
	Resource    string
	Node        string
	Features    uint64 // of the protocol, one bit each; unknown bits are ignored
	Role        state.Role
	Suspect     bool // the sender came back from a crash (rule R8)
	LastPrimary bool // the sender was the last Primary it knows of
	SyncPaused  bool // the resync the sender is the source of is paused
	Record      Record
	Volumes     []HelloVolume

	// In sections, which a release may leave out.

	Release  string         // the sender's, for people; at most MaxNameBytes
	Protocol state.Protocol // that the sender is configured for
	Split    *Split         // nil: it does not say
	Resize   Resize
}

// HelloVolume is one volume in a Hello. The size and block fields are 0 on a
// node without the disk.
type HelloVolume struct {
	Number            uint16
	SizeBytes         int64
	LogicalBlockBytes uint32
	Disk              state.Disk
	Gen               [10]uint64 // current, bitmap, eight of history, newest first
	DirtyBlocks       uint64
	AssumeClean       bool // never synced, and the operator said both copies are equal
	FullSync          bool // every block is to be treated as dirty

	// In a section: the sizes that the volume can be given on the sender's disks as
	// they are; both 0 when that is not known.
	FloorBytes, RoomBytes int64
}

// Record is what the ledger says about a resource, as far as the sender knows.
type Record struct {
	Token   uint64
	Tenure  uint64
	Primary string   // empty: none
	InSync  []string // nodes whose copies have every answered write
}

// A payload of this format, little-endian; a name is one byte of length and
// its bytes, a Record as in AppendRecord:
//
//	1  format, 1          then   Record
//	1  Role               2      number of volumes, each:
//	1  bits: 0 Suspect,     2    length of what follows, at least 104
//	   1 LastPrimary,       2 8 4 1  Number SizeBytes LogicalBlockBytes Disk
//	   2 SyncPaused
//	1  zero                 1    bits: 0 AssumeClean, 1 FullSync
//	8  Features             80   Gen
//	   Resource, Node       8    DirtyBlocks
//	then sections, see there
//
// Bytes beyond what is known, at the end of a volume, are those of a later
// release and skipped.
const helloFormat = 1

// AppendHello appends the encoding of h to dst; an error wraps ErrHello or
// ErrRecord and leaves dst as it was.
func AppendHello(dst []byte, h *HelloBody) ([]byte, error) {
	if err := checkHello(h); err != nil {
		return dst, err
	}
	le := binary.LittleEndian
	out := append(dst, helloFormat, byte(h.Role), pack(h.Suspect, h.LastPrimary, h.SyncPaused), 0)
	out = le.AppendUint64(out, h.Features)
	out = appendName(appendName(out, h.Resource), h.Node)
	out, err := AppendRecord(out, &h.Record)
	if err != nil {
		return dst, err
	}
	out = le.AppendUint16(out, uint16(len(h.Volumes)))
	for i := range h.Volumes {
		v := &h.Volumes[i]
		out = le.AppendUint16(out, volumeBytes)
		out = le.AppendUint16(out, v.Number)
		out = le.AppendUint64(out, uint64(v.SizeBytes))
		out = le.AppendUint32(out, v.LogicalBlockBytes)
		out = append(out, byte(v.Disk), pack(v.AssumeClean, v.FullSync))
		for _, id := range v.Gen {
			out = le.AppendUint64(out, id)
		}
		out = le.AppendUint64(out, v.DirtyBlocks)
	}
	return appendSections(out, h), nil
}

// ParseHello reads the payload of a Hello or State; an error wraps ErrHello or
// ErrRecord and says what was found. The result shares no memory with b.
func ParseHello(b []byte) (*HelloBody, error) {
	if len(b) > MaxHelloBytes {
		return nil, refuse(ErrHello, "%d bytes, limit %d", len(b), MaxHelloBytes)
	}
	r := reader{b: b, reason: ErrHello}
	if f := r.u8("format"); r.err == nil && f != helloFormat {
		return nil, refuse(ErrHello, "format %d, this release reads %d", f, helloFormat)
	}
	h := &HelloBody{Role: state.Role(r.u8("role"))}
	r.bits("node bits", &h.Suspect, &h.LastPrimary, &h.SyncPaused)
	if z := r.u8("reserved byte"); r.err == nil && z != 0 {
		return nil, refuse(ErrHello, "reserved byte is %d, must be zero", z)
	}
	h.Features = r.u64("features")
	h.Resource, h.Node = r.name("resource"), r.name("node")
	r.record(&h.Record)
	r.volumes(h)
	r.sections(h)
	if r.err != nil {
		return nil, r.err
	}
	if err := checkHello(h); err != nil {
		return nil, err
	}
	return h, nil
}

// AppendRecord appends the encoding of rec: Token, Tenure (8 bytes each),
// Primary, one byte with the number of members, their names. An error wraps
// ErrRecord and leaves dst as it was.
func AppendRecord(dst []byte, rec *Record) ([]byte, error) {
	if err := checkRecord(rec); err != nil {
		return dst, err
	}
	out := binary.LittleEndian.AppendUint64(dst, rec.Token)
	out = binary.LittleEndian.AppendUint64(out, rec.Tenure)
	out = append(appendName(out, rec.Primary), byte(len(rec.InSync)))
	for _, node := range rec.InSync {
		out = appendName(out, node)
	}
	return out, nil
}

// ParseRecord reads the payload of an InSync; an error wraps ErrRecord.
func ParseRecord(b []byte) (*Record, error) {
	if len(b) > MaxRecordBytes {
		return nil, refuse(ErrRecord, "%d bytes, limit %d", len(b), MaxRecordBytes)
	}
	r := reader{b: b, reason: ErrRecord}
	rec := &Record{}
	r.record(rec)
	if r.err != nil {
		return nil, r.err
	}
	if err := checkRecord(rec); err != nil {
		return nil, err
	}
	return rec, nil
}

func checkHello(h *HelloBody) error {
	if err := checkNames(ErrHello, h.Resource, h.Node); err != nil {
		return err
	}
	if h.Protocol > state.ProtocolA {
		return refuse(ErrHello, "protocol %d, known are 0 to %d", uint8(h.Protocol), uint8(state.ProtocolA))
	}
	if h.Role > state.Primary {
		return refuse(ErrHello, "role %d, known are 0 to %d", uint8(h.Role), uint8(state.Primary))
	}
	if len(h.Volumes) > MaxVolumes {
		return refuse(ErrHello, "%d volumes, limit %d", len(h.Volumes), MaxVolumes)
	}
	if len(h.Release) > MaxNameBytes {
		return refuse(ErrHello, "release %.80q has %d bytes, limit %d", h.Release, len(h.Release), MaxNameBytes)
	}
	if err := checkRecord(&h.Record); err != nil {
		return err
	}
	if err := checkSplit(h); err != nil {
		return err
	}
	if err := checkResize(h); err != nil {
		return err
	}
	for i := range h.Volumes {
		v := &h.Volumes[i]
		switch lb := v.LogicalBlockBytes; {
		case i > 0 && v.Number <= h.Volumes[i-1].Number:
			return refuse(ErrHello, "volume %d after volume %d, must be sorted without doubles", v.Number, h.Volumes[i-1].Number)
		case v.SizeBytes < 0:
			return refuse(ErrHello, "volume %d of %d bytes", v.Number, v.SizeBytes)
		case v.Disk > state.UpToDate:
			return refuse(ErrHello, "volume %d: disk state %d, known are 0 to %d", v.Number, uint8(v.Disk), uint8(state.UpToDate))
		case lb != 0 && (lb < minLogicalBlock || lb > maxLogicalBlock || bits.OnesCount32(lb) != 1):
			return refuse(ErrHello, "volume %d: logical block of %d bytes, must be a power of two from %d to %d", v.Number, lb, minLogicalBlock, maxLogicalBlock)
		}
	}
	return nil
}

func checkRecord(rec *Record) error {
	if len(rec.Primary) > MaxNameBytes {
		return refuse(ErrRecord, "name of the Primary has %d bytes, limit %d", len(rec.Primary), MaxNameBytes)
	}
	if len(rec.InSync) > MaxMembers {
		return refuse(ErrRecord, "%d nodes in sync, limit %d", len(rec.InSync), MaxMembers)
	}
	return checkNames(ErrRecord, rec.InSync...)
}

func checkNames(reason error, names ...string) error {
	for _, name := range names {
		if len(name) == 0 || len(name) > MaxNameBytes {
			return refuse(reason, "name %.80q has %d bytes, must have 1 to %d", name, len(name), MaxNameBytes)
		}
	}
	return nil
}

func pack(bits ...bool) (b byte) {
	for i, on := range bits {
		if on {
			b |= 1 << i
		}
	}
	return b
}

func appendName(dst []byte, s string) []byte { return append(append(dst, byte(len(s))), s...) }
