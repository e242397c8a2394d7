// Package replay records what a run did to its disks, and makes again what a
// power cut at any point of it may have left on them: every write that a flush
// has covered, and any part of the others, as dm-log-writes and a disk with a
// volatile cache would have it.
package replay

import (
	"slices"
	"sync"

	"hapair/mirror/block"
)

// AtomicBytes is the most that a disk writes wholly or not at all: what is
// longer may be torn between two of these.
const AtomicBytes = 4096

// Log is what happened, in order. It is safe for concurrent use while it records.
type Log struct {
	mu     sync.Mutex
	events []Event
	disks  []int64 // sizes in bytes
}

// Event is one thing that happened: a request was submitted to a disk, or
// completed there, or the run noted something.
type Event struct {
	Disk     int
	Request  *Request // nil of a note
	Finished bool     // the request has completed, with success
	Note     func()   // told to whoever plays the log
}

// Request is a change of a disk, or a flush.
type Request struct {
	Op     block.Op
	FUA    bool
	Offset int64
	Length int64
	Data   []byte // of a write

	covers []*pending // of a flush: what it makes durable
}

// Note puts a note into the log: fn is called when a replay comes to it.
func (l *Log) Note(fn func()) { l.add(Event{Note: fn}) }

func (l *Log) add(e Event) {
	l.mu.Lock()
	l.events = append(l.events, e)
	l.mu.Unlock()
}

// Events are what was recorded so far.
func (l *Log) Events() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// Record puts the log around a disk, and returns its number in the log beside.
func (l *Log) Record(inner block.Disk) (d block.Disk, number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disks = append(l.disks, inner.Geometry().SizeBytes)
	return &disk{Disk: inner, log: l, number: len(l.disks) - 1}, len(l.disks) - 1
}

// disk is a disk that is recorded.
type disk struct {
	block.Disk
	log    *Log
	number int
}

// Submit records a request before the disk sees it, and its success before
// anybody hears of it: what follows from it comes later in the log.
func (d *disk) Submit(r *block.Request) {
	if r.Op == block.Read {
		d.Disk.Submit(r)
		return
	}
	kept := &Request{Op: r.Op, FUA: r.Flags&block.FUA != 0, Offset: r.Offset, Length: r.Length, Data: slices.Clone(r.Data)}
	d.log.add(Event{Disk: d.number, Request: kept})
	inner := *r
	inner.Done = func(_ *block.Request, err error) {
		if err == nil {
			d.log.add(Event{Disk: d.number, Request: kept, Finished: true})
		}
		r.Done(r, err)
	}
	d.Disk.Submit(&inner)
}

// Unplug starts what the disk has kept back.
func (d *disk) Unplug() {
	if u, ok := d.Disk.(block.Unplugger); ok {
		u.Unplug()
	}
}
