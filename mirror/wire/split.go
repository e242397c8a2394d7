package wire

import "encoding/binary"

// FeatureSplit: the sender tells of its part in a split brain (HelloBody.Split),
// and ends one by what the bitmaps of both say when a side gives up.
const FeatureSplit uint64 = 1 << 4

// Split is what a node tells of its part in a split brain. A release without
// FeatureSplit says none.
type Split struct {
	GivesUp  bool      // what only the sender has may be overwritten: somebody said so
	PutBack  bool      // what the sender gave up once was put back: no policy decides again
	Policies [3]string // after_split_brain: no Primary, one, two; at most maxPolicyBytes each
	Volumes  []SplitVolume
}

// SplitVolume is one volume of a Split, in the order of HelloBody.Volumes.
type SplitVolume struct {
	Since int64 // when the sender first went on without its peer, in seconds since 1970; 0: not known
	Elder bool  // the sender was Primary then, and had been before the two parted
}

// maxPolicyBytes bounds a policy: the longest names a node.
const maxPolicyBytes = 2 * MaxNameBytes

// appendSplit appends the section of a Split:
//
//	1  bits: 0 GivesUp, 1 PutBack
//	   three policies, each one byte of length and its bytes
//	2  number of volumes, each:
//	   8  Since        1  bits: 0 Elder
func appendSplit(dst []byte, s *Split) []byte {
	dst = append(dst, pack(s.GivesUp, s.PutBack))
	for _, p := range s.Policies {
		dst = appendName(dst, p)
	}
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(s.Volumes)))
	for _, v := range s.Volumes {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(v.Since))
		dst = append(dst, pack(v.Elder))
	}
	return dst
}

// split reads the section of a Split.
func (r *reader) split() *Split {
	s := &Split{}
	r.bits("split brain bits", &s.GivesUp, &s.PutBack)
	for i := range s.Policies {
		s.Policies[i] = string(r.take(int(r.u8("length of a policy")), "policy"))
	}
	for n := int(r.u16("number of volumes in a split brain")); r.err == nil && len(s.Volumes) < min(n, MaxVolumes+1); {
		v := SplitVolume{Since: int64(r.u64("since"))}
		r.bits("volume bits in a split brain", &v.Elder)
		s.Volumes = append(s.Volumes, v)
	}
	return s
}

// checkSplit judges a Split against the Hello it is in.
func checkSplit(h *HelloBody) error {
	s := h.Split
	if s == nil {
		return nil
	}
	if len(s.Volumes) != len(h.Volumes) {
		return refuse(ErrHello, "%d volumes in a split brain, of %d", len(s.Volumes), len(h.Volumes))
	}
	for _, p := range s.Policies {
		if len(p) > maxPolicyBytes {
			return refuse(ErrHello, "policy %.80q has %d bytes, limit %d", p, len(p), maxPolicyBytes)
		}
	}
	for _, v := range s.Volumes {
		if v.Since < 0 {
			return refuse(ErrHello, "apart since %d", v.Since)
		}
	}
	return nil
}
