package engine

import (
	"time"

	"hapair/mirror/block"
)

type opKind uint8

const (
	opApplication opKind = iota + 1 // from a front end
	opPeer                          // from the peer's Primary or resync source
	opResync                        // a chunk this node sends as source
	opFlush                         // a flush of the engine's own
	opFill                          // a chunk that a Primary fetches for its own copy
	opVerify                        // a check of a verify that this node drives
	opAnswer                        // a range the peer's verify asks about
	opZero                          // a piece behind the volume that is to read zero
)

// owed says who must still answer before an op is settled.
type owed uint8

const (
	owedLocal  owed = 1 << iota // the local disk
	owedPeer                    // the peer
	owedLedger                  // the ledger: removal of the peer from the in-sync set
	owedSuper                   // the superblock: a new generation
	owedDigest                  // the digests of what was read
	owedPage                    // the bitmap page that marks a difference
)

// op is one request on its way. It is in exactly one place at a time; the
// fields beside kind and vol count down what it waits for.
type op struct {
	kind opKind
	vol  *volume
	req  *block.Request // the application's; nil otherwise
	disk block.Request  // what goes to the local disk

	id      uint64 // slot index in the low bits, generation above
	owed    owed
	sent    bool          // handed to the peer on the present session
	sentAt  time.Duration // when; 0 where nobody waits for it
	logged  bool          // its extents are held in the activity log
	mends   bool          // a read that failed: fetched from the peer and written again
	heals   bool          // a mend that a verify asks for: no front end waits
	copied  bool          // disk.Data is a copy of the application's: it may be answered early
	heard   bool          // the peer has it in its memory
	early   bool          // the application has been answered
	ordered bool          // done at the peer in its place among the writes
	fenced  int           // flush: so many writes that were answered before it are in flight
	epoch   uint64        // flush, early: between which flushes it was answered
	err     error
	cause   error  // mends: why the read failed
	mark    uint64 // flush: settled writes it covers; heals: the run of the verify
	start0  uint64 // flush: its number among the volume's
	began   time.Duration
	session uint64 // opPeer: where the ack goes
	peerID  uint64 // opPeer: id to acknowledge
	buf     *block.Buffer
	check   *check // opVerify

	// placement in one list
	in         *opList
	prev, next *op
}

// asks is what the application wants; a read that is mended is a write at the disk.
func (o *op) asks() block.Op {
	if o.req == nil {
		return o.disk.Op
	}
	return o.req.Op
}

func (o *op) start() int64 { return o.disk.Offset }
func (o *op) end() int64   { return o.disk.Offset + o.disk.Length }

// reads makes o a read of the local disk, or of the peer, into a buffer of its own.
func (o *op) reads(offset, length int64) {
	o.buf = block.GetBuffer(int(length))
	o.disk.Op, o.disk.Offset, o.disk.Length, o.disk.Data = block.Read, offset, length, o.buf.Bytes(int(length))
}

func (o *op) overlaps(p *op) bool { return o.start() < p.end() && p.start() < o.end() }

// opList is a doubly linked list without allocations.
type opList struct {
	head, tail *op
	n          int
}

func (l *opList) push(o *op) {
	if o.in != nil {
		panic("engine: op is already on a list")
	}
	o.in, o.prev, o.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = o
	} else {
		l.head = o
	}
	l.tail = o
	l.n++
}

func (l *opList) remove(o *op) {
	if o.in != l {
		panic("engine: op is not on this list")
	}
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		l.head = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		l.tail = o.prev
	}
	o.in, o.prev, o.next = nil, nil, nil
	l.n--
}

func (l *opList) overlaps(o *op) bool {
	for p := l.head; p != nil; p = p.next {
		if o.overlaps(p) {
			return true
		}
	}
	return false
}

func (l *opList) owes(what owed) bool {
	for p := l.head; p != nil; p = p.next {
		if p.owed&what != 0 {
			return true
		}
	}
	return false
}

func (l *opList) pop() *op {
	o := l.head
	if o != nil {
		l.remove(o)
	}
	return o
}

// opPool hands out ops. Ids are unique for as long as one process lives, so
// that an ack of an old session can never meet a new op.
type opPool struct {
	slots []op
	free  []uint32
}

const slotBits = 16

func (p *opPool) init(n int) {
	p.slots = make([]op, n)
	p.free = make([]uint32, n)
	for i := range p.slots {
		p.slots[i].id = uint64(i)
		p.free[i] = uint32(n - 1 - i)
	}
}

// get returns a blank op, or nil when all are in use.
func (p *opPool) get(kind opKind, v *volume) *op {
	if len(p.free) == 0 {
		return nil
	}
	o := &p.slots[p.free[len(p.free)-1]]
	p.free = p.free[:len(p.free)-1]
	id := o.id + 1<<slotBits
	done := o.disk.Done
	*o = op{kind: kind, vol: v, id: id}
	o.disk.Owner, o.disk.Done = o, done
	return o
}

// empty reports whether get would return nil.
func (p *opPool) empty() bool { return len(p.free) == 0 }

func (p *opPool) put(o *op) {
	if o.in != nil {
		panic("engine: freed op is still on a list")
	}
	o.req, o.vol, o.disk.Data, o.cause, o.check = nil, nil, nil, nil, nil
	p.free = append(p.free, uint32(o.id&(1<<slotBits-1)))
}

// find returns the op with an id, or nil when it has ended.
func (p *opPool) find(id uint64) *op {
	i := id & (1<<slotBits - 1)
	if i >= uint64(len(p.slots)) {
		return nil
	}
	if o := &p.slots[i]; o.id == id && o.vol != nil {
		return o
	}
	return nil
}
