package history

import (
	"math"
	"time"
)

// forever is later than any return.
const forever = time.Duration(math.MaxInt64)

// event is an operation as one register sees it.
type event struct {
	op           *Op
	kind         Kind
	value        Value // written or found
	call, ret    time.Duration
	unanswered   bool
	answeredUpTo time.Duration // of a flush: it covers writes that returned before
}

// register is the history of one sector. Sectors of a block that no read ever
// told apart are one register.
type register struct {
	block, sector int
	events        []event
}

// blocks lists the operations of each block, flushes and losses in all of them.
func (h *History) blocks() map[int][]*Op {
	out := map[int][]*Op{}
	for _, o := range h.ops {
		for b := o.Block; b < o.Block+o.Blocks; b++ {
			out[b] = nil
		}
	}
	for _, o := range h.ops {
		if o.Kind == Flush || o.Kind == Loss {
			for b := range out {
				out[b] = append(out[b], o)
			}
			continue
		}
		for b := o.Block; b < o.Block+o.Blocks; b++ {
			out[b] = append(out[b], o)
		}
	}
	return out
}

// registers are the different registers of a block.
func registers(block int, ops []*Op) []register {
	torn := false
	for _, o := range ops {
		if o.Kind == Read && o.Answered {
			c := o.Found[block-o.Block]
			torn = torn || c != uniform(c[0])
		}
	}
	n := 1
	if torn {
		n = BlockSectors
	}
	out := make([]register, n)
	for s := range out {
		out[s] = register{block: block, sector: s, events: sectorEvents(block, s, ops)}
	}
	return out
}

// sectorEvents are what one sector's answers have to be explained by. A request
// without an answer explains something only if its value was found: a read or
// flush does nothing to a register, and where nobody read a write, leaving it
// out of an order leaves every answer right. One that was found took effect
// before that read returned, so its interval ends there: without that, each
// would be beside all that follows, and the search would have no end.
func sectorEvents(block, sector int, ops []*Op) []event {
	found := map[Value]time.Duration{} // earliest return of a read that found it
	for _, o := range ops {
		if o.Kind == Read && o.Answered {
			v := o.Found[block-o.Block][sector]
			if at, ok := found[v]; !ok || o.Return < at {
				found[v] = o.Return
			}
		}
	}
	var out []event
	for _, o := range ops {
		e := event{op: o, kind: o.Kind, value: o.Value, call: o.Call, ret: o.Return, unanswered: !o.Answered}
		switch {
		case o.Answered && o.Kind == Read:
			e.value = o.Found[block-o.Block][sector]
		case o.Answered:
			e.answeredUpTo = o.Call
		case o.Kind != Write:
			continue
		default:
			at, ok := found[o.Value]
			if !ok {
				continue
			}
			e.ret = max(at, o.Call)
		}
		out = append(out, e)
	}
	return out
}

// until is what was known of a register at an instant: what was called, and of
// that, what had returned.
func (r *register) until(at time.Duration) []event {
	var out []event
	for _, e := range r.events {
		switch {
		case e.call > at:
			continue
		case e.ret <= at:
		case e.kind == Write:
			e.ret = forever
		default:
			continue
		}
		out = append(out, e)
	}
	return out
}
