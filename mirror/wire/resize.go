package wire

import (
	"encoding/binary"
	"fmt"
)

// ResizeStep is where a resize is. ONLY APPEND: the values are the protocol.
type ResizeStep uint8

// The steps, in their order. Who leads says Ask and Grow, the other answers.
const (
	NoResize      ResizeStep = iota
	ResizeAsk                // what does your disk offer?
	ResizeOffer              // SizeBytes: at most
	ResizeGrow               // make it SizeBytes, durably
	ResizeGrown              // it has SizeBytes, durably
	ResizeRefused            // Text says why
	lastStep      = ResizeRefused
)

// String returns the word for the step.
func (s ResizeStep) String() string {
	if s <= lastStep {
		return [...]string{"none", "ask", "offer", "grow", "grown", "refused"}[s]
	}
	return fmt.Sprintf("step(%d)", uint8(s))
}

// Resize is how far a resize of one volume is at the sender: it stands in every
// Hello and State while it runs, so that none of its steps can be missed. Only
// to a peer with FeatureResize.
type Resize struct {
	Step      ResizeStep
	Round     uint64 // of the leader's; an answer repeats it
	Volume    uint16
	SizeBytes int64
	Trusted   bool   // the new range is taken for equal as it is
	Text      string // at most MaxTextBytes
}

// The section, little-endian:
//
//	2  number of volumes, as in the Hello, each:
//	   8 8  FloorBytes RoomBytes
//	1  Step; 0: nothing follows
//	8  Round          8  SizeBytes
//	2  Volume         1  bits: 0 Trusted
//	2  length of Text, its bytes
func appendResize(dst []byte, h *HelloBody) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint16(dst, uint16(len(h.Volumes)))
	for i := range h.Volumes {
		dst = le.AppendUint64(dst, uint64(h.Volumes[i].FloorBytes))
		dst = le.AppendUint64(dst, uint64(h.Volumes[i].RoomBytes))
	}
	r := &h.Resize
	dst = append(dst, byte(r.Step))
	if r.Step == NoResize {
		return dst
	}
	dst = le.AppendUint64(dst, r.Round)
	dst = le.AppendUint64(dst, uint64(r.SizeBytes))
	dst = append(le.AppendUint16(dst, r.Volume), pack(r.Trusted))
	return append(le.AppendUint16(dst, uint16(len(r.Text))), r.Text...)
}

func (r *reader) resize(h *HelloBody) {
	if n := int(r.u16("number of volumes that have room")); r.err == nil && n != len(h.Volumes) {
		r.err = refuse(r.reason, "room of %d volumes, there are %d", n, len(h.Volumes))
	}
	for i := 0; i < len(h.Volumes) && r.err == nil; i++ {
		h.Volumes[i].FloorBytes, h.Volumes[i].RoomBytes = int64(r.u64("floor")), int64(r.u64("room"))
	}
	x := Resize{Step: ResizeStep(r.u8("step of a resize"))}
	if r.err != nil || x.Step == NoResize {
		return
	}
	x.Round, x.SizeBytes, x.Volume = r.u64("round"), int64(r.u64("size")), r.u16("volume of a resize")
	r.bits("bits of a resize", &x.Trusted)
	x.Text = string(r.take(int(r.u16("length of a text")), "text of a resize"))
	h.Resize = x
}

// checkResize judges what concerns the sizes of volumes.
func checkResize(h *HelloBody) error {
	for i := range h.Volumes {
		if v := &h.Volumes[i]; v.FloorBytes < 0 || v.RoomBytes < 0 {
			return refuse(ErrHello, "volume %d has room from %d to %d bytes", v.Number, v.FloorBytes, v.RoomBytes)
		}
	}
	switch r := &h.Resize; {
	case r.Step > lastStep:
		return refuse(ErrHello, "a resize at step %d, known are 0 to %d", uint8(r.Step), uint8(lastStep))
	case r.SizeBytes < 0:
		return refuse(ErrHello, "a resize to %d bytes", r.SizeBytes)
	case len(r.Text) > MaxTextBytes:
		return refuse(ErrHello, "a resize with a text of %d bytes, limit %d", len(r.Text), MaxTextBytes)
	}
	return nil
}

// tellsResize reports whether the section says anything.
func tellsResize(h *HelloBody) bool {
	for i := range h.Volumes {
		if h.Volumes[i].FloorBytes != 0 || h.Volumes[i].RoomBytes != 0 {
			return true
		}
	}
	return h.Resize.Step != NoResize
}
