package history

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// ErrUndecided is wrapped by the verdict on a register whose search took too long.
var ErrUndecided = errors.New("the search for an order took too long")

// Verdict of a history.
type Verdict struct {
	Registers int           // looked at
	Longest   time.Duration // search
}

// Judge looks for an order that explains all answers, register by register;
// the search for each may take as long as within. The error tells the first
// answer of each register that nothing explains.
func (h *History) Judge(within time.Duration) (Verdict, error) {
	var v Verdict
	var errs []error
	blocks := h.blocks()
	lossy := slices.ContainsFunc(h.ops, func(o *Op) bool { return o.Kind == Loss })
	for _, b := range slices.Sorted(maps.Keys(blocks)) {
		for _, r := range registers(b, blocks[b]) {
			v.Registers++
			began := time.Now()
			errs = append(errs, r.judge(lossy, within))
			v.Longest = max(v.Longest, time.Since(began))
		}
	}
	return v, errors.Join(errs...)
}

func (r *register) judge(lossy bool, within time.Duration) error {
	switch porcupine.CheckOperationsTimeout(model(lossy), operations(r.events), within) {
	case porcupine.Ok:
		return nil
	case porcupine.Illegal:
		return r.explain(lossy, within)
	default:
		return fmt.Errorf("block %d, sector %d, %d requests: %w (%s)", r.block, r.sector, len(r.events), ErrUndecided, within)
	}
}

// explain finds the earliest return up to which nothing explains the answers:
// what holds at an instant held before.
func (r *register) explain(lossy bool, within time.Duration) error {
	var ends []time.Duration
	for _, e := range r.events {
		ends = append(ends, e.ret)
	}
	slices.Sort(ends)
	ends = slices.Compact(ends)
	i, _ := slices.BinarySearchFunc(ends, true, func(at time.Duration, _ bool) int {
		if porcupine.CheckOperationsTimeout(model(lossy), operations(r.until(at)), within) == porcupine.Illegal {
			return 1
		}
		return -1
	})
	i = min(i, len(ends)-1)
	return fmt.Errorf("block %d, sector %d: no order explains the answers up to %s:%s", r.block, r.sector, ends[i], r.around(ends[i]))
}

// shown is how many requests an error shows of those before the wrong answer.
const shown = 12

// around lists the requests that returned last before an instant, and the
// writes whose values they found.
func (r *register) around(at time.Duration) string {
	events := r.until(at)
	slices.SortFunc(events, func(a, b event) int { return int(min(a.ret, at) - min(b.ret, at)) })
	last := events[max(0, len(events)-shown):]
	wanted := map[Value]bool{}
	for _, e := range last {
		wanted[e.value] = e.kind == Read || wanted[e.value]
	}
	out := new(strings.Builder)
	for i, e := range events {
		if i < len(events)-len(last) && (e.kind != Write || !wanted[e.value]) {
			continue
		}
		fmt.Fprintf(out, "\n\t%s", e.op)
		if e.kind == Read {
			fmt.Fprintf(out, ": found %d", e.value)
		}
	}
	return out.String()
}
