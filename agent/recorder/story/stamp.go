// Package story is the pure part of the flight recorder: hybrid logical time,
// the entries and their form on disk, which of them are known, and how the
// records of several nodes become one story.
//
//  1. stamp.go  hybrid logical time
//  2. entry.go  one entry, and its form on disk and between nodes
//  3. seen.go   which entries of whom are known
//  4. tell.go   the one order, and what is missing in it
package story

import (
	"fmt"
	"time"
)

// Stamp is a hybrid logical time: milliseconds since 1970 of the fastest clock
// this node has heard of, shifted by 16 bits, plus a count. What a node did after
// it had heard another one has a greater stamp than what that one had done until
// then, however wrong either clock is.
type Stamp uint64

// counterBits are the low bits that count within a millisecond. A count that
// overflows runs into the next millisecond.
const counterBits = 16

// MaxStamp bounds what is believed of another node: some hundred years after
// 1970 many times over, far from the end of the number.
const MaxStamp Stamp = 1 << 62

// At is the first stamp of a millisecond; 0 before 1970.
func At(t time.Time) Stamp {
	ms := t.UnixMilli()
	if ms < 0 {
		return 0
	}
	return min(Stamp(ms)<<counterBits, MaxStamp)
}

// Next is the stamp of what happens now on a node that has given or heard none
// greater than last.
func Next(last Stamp, now time.Time) Stamp { return max(last+1, At(now)) }

// Heard is the greatest stamp known after another node's was heard. One beyond
// MaxStamp is not believed.
func Heard(last, other Stamp) Stamp {
	if other > MaxStamp {
		return last
	}
	return max(last, other)
}

// Time is the clock's share of it, in milliseconds.
func (s Stamp) Time() time.Time { return time.UnixMilli(int64(s >> counterBits)).UTC() }

// String returns milliseconds and count. Of equally long numbers the texts are
// ordered as the stamps are, for as long as the milliseconds have 13 digits.
func (s Stamp) String() string {
	return fmt.Sprintf("%013d.%05d", uint64(s>>counterBits), uint64(s)&(1<<counterBits-1))
}
