// Package history judges what several clients of one device were told, reads
// included: is there one order of all requests, each taking effect at an instant
// between its call and its return, that explains every answer? The search is
// porcupine's; here is what a mirrored block device owes.
//
//  1. history.go   what is recorded
//  2. line.go      how a client on another machine tells it, line by line
//  3. register.go  one history into many: a register for each sector
//  4. model.go     what a register may do: read, write, flush, loss of power
//  5. judge.go     the verdict, and the first answer that nothing explains
//
// A request without an answer, or with an error, may have taken effect or not, at
// any time since. An answered flush covers each write that was answered before the
// flush was called. Loss is an instant at which no copy kept what was not
// flushed; without one, nothing that was answered may be lost, flushed or not.
package history

import (
	"fmt"
	"time"
)

// Sizes of a register: writes and reads are whole blocks, torn ones show in
// sectors.
const (
	SectorBytes  = 512
	BlockBytes   = 4096
	BlockSectors = BlockBytes / SectorBytes
)

// Value names the write that put a block's contents there; 0 is a block that
// was never written. No two writes have the same.
type Value uint64

// Kind says what a client asked for.
type Kind uint8

// The kinds.
const (
	Read Kind = iota + 1
	Write
	Flush
	// Loss is of nobody: the power of every copy is gone at once.
	Loss
)

func (k Kind) String() string {
	return [...]string{"?", "read", "write", "flush", "loss of power"}[k]
}

// Contents are what a read found in one block, sector by sector.
type Contents [BlockSectors]Value

// Op is one request and its answer.
type Op struct {
	Who           string // node and client
	Kind          Kind
	Block, Blocks int        // first, and how many; of a read or write
	Value         Value      // of a write
	Found         []Contents // of an answered read
	Call, Return  time.Duration
	Answered      bool // with success
}

func (o *Op) String() string {
	s := fmt.Sprintf("%s of %s at %s", o.Kind, o.Who, o.Call)
	switch o.Kind {
	case Read:
		s = fmt.Sprintf("%s of blocks %d+%d by %s at %s", o.Kind, o.Block, o.Blocks, o.Who, o.Call)
	case Write:
		s = fmt.Sprintf("write %d to blocks %d+%d by %s at %s", o.Value, o.Block, o.Blocks, o.Who, o.Call)
	case Flush, Loss:
	}
	if !o.Answered {
		return s + ", not answered"
	}
	return s + fmt.Sprintf(", answered after %s", o.Return-o.Call)
}

// History is all that was asked of one device. The zero value is of a device
// of zeroes.
type History struct {
	ops  []*Op
	open map[string]*Op // by client and number, until it is answered
}

// Add records a whole operation.
func (h *History) Add(o Op) { h.ops = append(h.ops, &o) }

// Lost records that no copy kept what was not flushed, between two instants.
func (h *History) Lost(from, to time.Duration) {
	h.Add(Op{Who: "the lab", Kind: Loss, Call: from, Return: to, Answered: true})
}

// Counts say how much was asked and answered.
type Counts struct{ Reads, Writes, Flushes, Open int }

// Counts of the history so far; Open are those without an answer.
func (h *History) Counts() (c Counts) {
	for _, o := range h.ops {
		switch {
		case !o.Answered:
			c.Open++
		case o.Kind == Read:
			c.Reads++
		case o.Kind == Write:
			c.Writes++
		case o.Kind == Flush:
			c.Flushes++
		}
	}
	return c
}

// Fill writes a value into the blocks of a buffer, with each sector's place, so
// that what lands elsewhere is known for it.
func Fill(data []byte, block int, v Value) {
	for at := 0; at < len(data); at += SectorBytes {
		putSector(data[at:at+SectorBytes], block*BlockSectors+at/SectorBytes, v)
	}
}

// Decode reads the contents of blocks; a sector that is torn inside or belongs
// elsewhere is an error.
func Decode(data []byte, block int) ([]Contents, error) {
	out := make([]Contents, len(data)/BlockBytes)
	for at := 0; at < len(data); at += SectorBytes {
		v, err := getSector(data[at:at+SectorBytes], block*BlockSectors+at/SectorBytes)
		if err != nil {
			return nil, err
		}
		out[at/BlockBytes][at%BlockBytes/SectorBytes] = v
	}
	return out, nil
}
