// Package genid holds the generation identifiers of a copy: which generation
// of the data it carries, which one it was when the peer left, and which ones
// came before. They are DRBD's, compared in DRBD's order. The package is pure.
//
// A new generation begins with the first write after a Primary goes on without
// its peer, not at the disconnect itself: two nodes that were both promoted and
// wrote nothing have not diverged.
package genid

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// ID names one generation of the data of a volume. 0 is none.
type ID uint64

// JustCreated is the generation of a copy on which nothing was ever written or
// synchronised. It is no ancestor: two copies that were merely both created
// have nothing in common.
const JustCreated ID = 4

// HistoryLen is how many former generations a copy remembers.
const HistoryLen = 8

// Bytes is the length of a marshalled Set.
const Bytes = 8 * (2 + HistoryLen)

// FromRandom turns a random number into an identifier that is neither none nor
// JustCreated. Give it 64 bits of a good source: identifiers must never repeat.
func FromRandom(random uint64) ID {
	if random <= uint64(JustCreated) {
		random |= 1 << 63
	}
	return ID(random)
}

// String writes the identifier as DRBD does, in 16 hexadecimal digits.
func (id ID) String() string { return fmt.Sprintf("%016X", uint64(id)) }

// known reports whether the identifier stands for data that copies can share.
func (id ID) known() bool { return id != 0 && id != JustCreated }

// Set is what one copy knows of its own past. It is a value: every method
// returns the set that follows and leaves its receiver alone.
type Set struct {
	Current ID // of the data here
	Bitmap  ID // Current at the time the peer left; 0 when nothing was written since
	History [HistoryLen]ID
}

// New returns the set of a copy that was just created.
func New() Set { return Set{Current: JustCreated} }

// Mint begins a generation: the first write without the peer, or a promotion
// that makes this copy the authority. id must be new and come from FromRandom;
// Mint panics on none, JustCreated, or the generation that is current already.
//
// The generation the peer left at stays in Bitmap however often Mint is called
// while it is away, so that the quick-sync bitmap remains usable for it.
func (s Set) Mint(id ID) Set {
	if !id.known() || id == s.Current {
		panic("genid: Mint needs a new identifier, got " + id.String())
	}
	forced := s.Forced()
	s = s.unmarked()
	if s.Bitmap == 0 {
		s.Bitmap = s.Current
	} else {
		s.History = push(push(s.History, s.SyncID()), s.Current)
	}
	s.Current = id
	return s.marked(forced)
}

// Force is Mint on a copy that did not count and was promoted by force. It may lack
// what was answered before, though its peer began no generation since. So it is apart
// from a copy that has its base, until the two are in line again. What says so is a
// mark in the history, which is no generation.
func (s Set) Force(id ID) Set { return s.Mint(id).marked(true) }

// Forced reports whether the set is as Force made it, or went on from there without
// its peer.
func (s Set) Forced() bool {
	return s.Bitmap != 0 && slices.Contains(s.History[:], derive("forced", s.Current))
}

// marked puts the mark of Force into the history, unmarked takes it away.
func (s Set) marked(forced bool) Set {
	if forced {
		s.History = push(s.History, derive("forced", s.Current))
	}
	return s
}

func (s Set) unmarked() Set {
	was, mark := s.History, derive("forced", s.Current)
	s.History = [HistoryLen]ID{}
	n := 0
	for _, id := range was {
		if id != mark {
			s.History[n] = id
			n++
		}
	}
	return s
}

// A resync from source to target, and what each of them carries:
//
//	                     source               target
//	before               Current Bitmap       Bitmap, or anything: then all is sent
//	all is to be sent    Rebase
//	while it runs        Current Bitmap       source.SyncID()  (Begin)
//	everything is there  source.SyncID()      source.SyncID()  (Finish; Adopt)
//
// The target changes its generation once, before the first byte arrives. From
// then on the source's bitmap says what it lacks, whenever either of them is
// lost, and the source begins a new generation with the next write it takes
// alone, whether or not it knows that the target was complete.

// SyncID is what a target carries that is being filled from this copy: derived,
// so that this copy knows it without having to write it down. 0 when this copy
// has not gone on since it was last in line with its peer.
func (s Set) SyncID() ID {
	if s.Bitmap == 0 {
		return 0
	}
	return derive("resync", s.Bitmap, s.Current)
}

func derive(what string, ids ...ID) ID {
	text := []byte("hapair " + what)
	for _, id := range ids {
		text = binary.LittleEndian.AppendUint64(text, uint64(id))
	}
	sum := sha256.Sum256(text)
	return FromRandom(binary.LittleEndian.Uint64(sum[:]))
}

// Rebase is the set of a source that marks everything as lacking at its peer:
// its bitmap is about a base that nobody ever had, so that by its SyncID it
// finds the target it is about to fill, and no copy that was in line with it,
// or half filled from it, before. id is as for Mint.
func (s Set) Rebase(id ID) Set {
	return Set{Current: id, Bitmap: derive("everything", id), History: push(s.past(), s.SyncID())}.marked(s.Forced())
}

// Rebased reports whether the set is as Rebase made it: a generation that no other
// copy has had.
func (s Set) Rebased() bool { return s.Bitmap != 0 && s.Bitmap == derive("everything", s.Current) }

// past is the history of a set that goes on under another generation. What
// Rebase made was never anybody else's, and needs no remembering.
func (s Set) past() [HistoryLen]ID {
	if s = s.unmarked(); s.Rebased() {
		return s.History
	}
	return push(push(s.History, s.Bitmap), s.Current)
}

// Begin is the set of a target that is about to be filled from source.
func (s Set) Begin(source Set) Set {
	id := source.SyncID()
	if id == 0 || id == s.Current {
		return s
	}
	return Set{Current: id, History: s.past()}
}

// Finish is the set of a source whose target has everything: it goes on under
// what the target carries.
func (s Set) Finish() Set {
	id := s.SyncID()
	if id == 0 {
		return s
	}
	return Set{Current: id, History: s.past()}
}

// InLine is the set of a copy that turned out to be equal to its peer's, under
// one generation: the base of its bitmap is history.
func (s Set) InLine() Set {
	s.History = push(s.History, s.Bitmap)
	s.Bitmap = 0
	return s
}

// Adopt is the set of a target that has finished a resync from source. Its own
// past is kept behind the source's, without duplicates.
func (s Set) Adopt(source Set) Set {
	out := Set{Current: source.Current}
	past := []ID{source.Bitmap, s.Current, s.Bitmap}
	past = append(past, source.History[:]...)
	past = append(past, s.History[:]...)
	n := 0
	for _, id := range past {
		if n == HistoryLen {
			break
		}
		if id.known() && id != out.Current && !slices.Contains(out.History[:n], id) {
			out.History[n] = id
			n++
		}
	}
	return out
}

// push puts id in front of a history, once; the oldest falls off the end.
func push(h [HistoryLen]ID, id ID) [HistoryLen]ID {
	if !id.known() {
		return h
	}
	out := [HistoryLen]ID{id}
	n := 1
	for _, old := range h {
		if n < HistoryLen && old != 0 && old != id {
			out[n] = old
			n++
		}
	}
	return out
}

// ancestor reports whether id is one of the generations s came from.
func (s Set) ancestor(id ID) bool {
	return id.known() && (s.Bitmap == id || slices.Contains(s.History[:], id))
}

// String writes current:bitmap:history, as DRBD's show-gi does.
func (s Set) String() string {
	out := s.Current.String() + ":" + s.Bitmap.String()
	for _, id := range s.History {
		if id != 0 {
			out += ":" + id.String()
		}
	}
	return out
}

// Words is the set as numbers: current, bitmap, history.
func (s Set) Words() (w [2 + HistoryLen]uint64) {
	w[0], w[1] = uint64(s.Current), uint64(s.Bitmap)
	for i, id := range s.History {
		w[2+i] = uint64(id)
	}
	return w
}

// FromWords is the set that Words wrote.
func FromWords(w [2 + HistoryLen]uint64) (s Set) {
	s.Current, s.Bitmap = ID(w[0]), ID(w[1])
	for i := range s.History {
		s.History[i] = ID(w[2+i])
	}
	return s
}

// Marshal writes the set into dst[:Bytes], little-endian: current, bitmap,
// history. dst must be long enough.
func (s Set) Marshal(dst []byte) {
	_ = dst[Bytes-1]
	binary.LittleEndian.PutUint64(dst, uint64(s.Current))
	binary.LittleEndian.PutUint64(dst[8:], uint64(s.Bitmap))
	for i, id := range s.History {
		binary.LittleEndian.PutUint64(dst[16+8*i:], uint64(id))
	}
}

// Unmarshal reads a set that Marshal wrote. Every Bytes-long text is a set; a
// shorter one is an error.
func Unmarshal(src []byte) (Set, error) {
	if len(src) < Bytes {
		return Set{}, fmt.Errorf("genid: %d bytes of generation identifiers, want %d", len(src), Bytes)
	}
	s := Set{
		Current: ID(binary.LittleEndian.Uint64(src)),
		Bitmap:  ID(binary.LittleEndian.Uint64(src[8:])),
	}
	for i := range s.History {
		s.History[i] = ID(binary.LittleEndian.Uint64(src[16+8*i:]))
	}
	return s, nil
}
