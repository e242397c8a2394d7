package bubble

import (
	"slices"
	"time"

	"hapair/failover/ledger"
	"hapair/test/check"
)

// judgeLoss tells the book when a crash is one fault too many: what was
// answered and not flushed may be gone then, as on a single disk.
func (w *World) judgeLoss(node string, power bool) {
	if node == witness {
		return
	}
	w.mu.Lock()
	x, y := w.boxes[node], w.boxes[other(node)]
	if power {
		x.cuts++
	}
	second := y.fragile || !slices.Contains(w.record.InSync, y.name)
	lost := second && (power || y.fragileCut)
	x.fragile, x.fragileCut, x.excludes = true, x.fragileCut || power, false
	w.mu.Unlock()
	if lost {
		w.notef("a double failure: what was not flushed may be lost")
		w.book.lost()
	}
}

// troubled notes that something was done to a node against its will.
func (w *World) troubled(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boxes[node].trouble = time.Now()
}

// opens is called when the device of a node opens. On a copy that has lost what
// it had not flushed, and was not brought in line since, that is right only when
// the other node failed too, or cannot be reached: a double failure. A node
// that was stopped in order has not failed.
func (w *World) opens(node string) {
	w.mu.Lock()
	x, y := w.boxes[node], w.boxes[other(node)]
	second := x.fragileCut && !y.trouble.IsZero() && (w.boots[y.name] == nil || time.Since(y.trouble) < 5*time.Second)
	second = second || x.fragileCut && w.fabric.troubled(node, y.name)
	w.mu.Unlock()
	if second {
		w.notef("%s serves without what it lost, %s being unreachable: a double failure", node, other(node))
		w.book.lost()
	}
}

// learn notes a record that some node has seen.
func (w *World) learn(r ledger.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Token <= w.record.Token {
		return
	}
	was := w.record
	w.record = r.Clone()
	if was.Tenure != r.Tenure || len(was.InSync) != 2 || len(r.InSync) != 1 {
		return
	}
	if x := w.boxes[r.InSync[0]]; x.fragileCut && !x.excludes {
		w.notef("an exclusion asked for by %s before its crash is committed: a double failure", x.name)
		w.book.lost()
	}
}

// powerCuts is how often the power of each data node was cut.
func (w *World) powerCuts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return map[string]int{alpha: w.boxes[alpha].cuts, beta: w.boxes[beta].cuts}
}

// excludes notes that a node asks the ledger to exclude the other.
func (w *World) excludes(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boxes[node].excludes = true
}

// owed returns the copies the ledger counts now, when a write is answered that
// was submitted at the time of cuts.
func (w *World) owed(cuts map[string]int) (all []*debt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.record.InSync {
		all = append(all, &debt{w: w, box: w.boxes[n], cuts: cuts[n], token: uint64(w.record.Token)})
	}
	return all
}

// debt is a copy that must be on a node's drive.
type debt struct {
	w     *World
	box   *box
	cuts  int
	token uint64
}

// check reads the drive.
func (o *debt) check(off int64, v check.Version, length int64) {
	data := make([]byte, length)
	if err := o.box.drives[diskFile].read(onVolume(off), data); err != nil {
		o.w.failf("read the drive of %s: %v", o.box.name, err)
		return
	}
	o.w.mu.Lock()
	cut := o.box.cuts != o.cuts
	o.w.mu.Unlock()
	for at := int64(0); at < length && !cut; at += sector {
		got, err := decode(int((off+at)/sector), data[at:at+sector])
		if err != nil || got < v {
			o.w.failf("ack law: write %d of (%d, %d) was answered while %s is in sync by token %d; its drive has %d (%v)", v, off, length, o.box.name, o.token, got, err)
			return
		}
	}
}
