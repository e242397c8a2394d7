package history

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// stored is one value a register has had, and when its write was answered.
type stored struct {
	value Value
	ret   time.Duration
}

// shelf is the state of a register: what it would hold after a loss of power at
// the earliest, and all it has held since; the last is what it holds now. A
// history without a loss needs only the last.
type shelf []stored

// model is a register as porcupine wants it. lossy keeps what a loss may bring
// back; without one that would only tell states apart that are the same.
func model(lossy bool) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{shelf{{}}} },
		Step: func(state, input, _ any) []any { return step(state.(shelf), input.(event), lossy) },
		Equal: func(a, b any) bool {
			return slices.Equal(a.(shelf), b.(shelf))
		},
		DescribeOperation: func(input, _ any) string { return input.(event).op.String() },
		DescribeState:     func(state any) string { return fmt.Sprint(state.(shelf)) },
	}
	return m.ToModel()
}

func step(s shelf, e event, lossy bool) []any {
	switch e.kind {
	case Read:
		if s[len(s)-1].value != e.value {
			return nil
		}
		return []any{s}
	case Write:
		at := e.ret
		if e.unanswered {
			at = forever // no flush owes it anything
		}
		if !lossy {
			return []any{shelf{{e.value, at}}}
		}
		return []any{append(slices.Clone(s), stored{e.value, at})}
	case Flush:
		return []any{flushed(s, e.answeredUpTo)}
	case Loss:
		var out []any
		for i := range s {
			out = append(out, shelf{s[i]})
		}
		return out
	}
	return nil
}

// flushed forgets what the last write that a flush covers has replaced.
func flushed(s shelf, before time.Duration) shelf {
	for i := len(s) - 1; i > 0; i-- {
		if s[i].ret < before {
			return s[i:]
		}
	}
	return s
}

// operations are events in porcupine's form.
func operations(events []event) []porcupine.Operation {
	out := make([]porcupine.Operation, len(events))
	for i, e := range events {
		out[i] = porcupine.Operation{ClientId: i, Input: e, Call: int64(e.call), Return: int64(e.ret)}
	}
	return out
}
