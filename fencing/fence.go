package fencing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"hapair/fencing/device"
)

// run is one fence of one node. It ends when a level has confirmed, all have
// failed, an operator gave his word, or nobody waits for it any more.
type run struct {
	why   string
	began time.Time
	end   context.CancelCauseFunc
	done  chan struct{} // closed when report is set

	// Guarded by the target's mu.
	waiters int // 0: it is being broken off
	word    *word
	level   int
	failed  []string

	report Report
}

// The causes that end a run early.
var (
	errNobodyWaits = errors.New("nobody waits for it any more")
	errWord        = errors.New("an operator confirmed")
	errClosed      = errors.New("the agent stops")
)

// Fence turns node off and returns what came of it. The levels of its devices
// are tried in order until one has confirmed. A fence of the same node that is
// under way is joined. When ctx ends the answer is Unknown, and the fence is
// broken off unless others wait for it: it may strike after Fence has returned.
// why is told to devices and written to the log.
func (r *Room) Fence(ctx context.Context, node, why string) Report {
	rep, _ := r.fence(ctx, node, why)
	return rep
}

// FenceToEnd is Fence for whoever must know when nothing of it strikes any more:
// when ctx ends it returns what came of the fence once that has ended. That is
// as soon as its devices let themselves be broken off or, when others wait for it,
// when these go, the devices have ended by themselves, or the room is closed.
func (r *Room) FenceToEnd(ctx context.Context, node, why string) Report {
	rep, f := r.fence(ctx, node, why)
	if f == nil {
		return rep
	}
	<-f.done
	return f.report
}

// fence is Fence. left is the run that is still under way, if any.
func (r *Room) fence(ctx context.Context, node, why string) (rep Report, left *run) {
	began := time.Now()
	t := r.nodes[node]
	if t == nil {
		return Report{Node: node, Outcome: Refused, Reason: r.noDevice(node).Error(), Began: began}, nil
	}
	for {
		if ctx.Err() != nil {
			return Report{Node: node, Outcome: Unknown, Began: began, Reason: "not begun: " + context.Cause(ctx).Error()}, nil
		}
		f, mine := r.join(t, why)
		if f == nil {
			return Report{Node: node, Outcome: Refused, Reason: errClosed.Error(), Began: began}, nil
		}
		select {
		case <-f.done:
			if mine {
				t.leave(f)
				return f.report, nil
			}
		case <-ctx.Done():
			if mine {
				t.leave(f)
			}
			return Report{Node: node, Outcome: Unknown, Began: f.began, Took: time.Since(f.began),
				Reason: "who asked did not wait for the end: " + context.Cause(ctx).Error()}, f
		}
	}
}

func (r *Room) noDevice(node string) error {
	if node == r.cfg.Self {
		return fmt.Errorf("%s is this node itself, which does not fence itself: %w", node, ErrNoDevice)
	}
	return fmt.Errorf("%w for node %s", ErrNoDevice, node)
}

// join returns the fence of t to wait for. mine says that it counts the caller;
// otherwise it is one that is being broken off, after which to ask again. nil:
// the room is closed.
func (r *Room) join(t *target, why string) (f *run, mine bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.run; f != nil {
		if f.waiters == 0 {
			return f, false
		}
		f.waiters++
		return f, true
	}
	r.life.sync.Lock()
	defer r.life.sync.Unlock()
	if r.life.shut {
		return nil, false
	}
	ctx, end := context.WithCancelCause(r.life.ctx)
	f = &run{why: why, began: time.Now(), end: end, done: make(chan struct{}), waiters: 1}
	if w := t.word; w != nil && f.began.Sub(w.at) < wordLasts {
		f.word = w
		end(errWord)
	}
	t.run, t.word = f, nil
	r.life.wg.Go(func() { r.carry(ctx, t, f) })
	return f, true
}

func (t *target) leave(f *run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.end(errNobodyWaits)
	}
}

// carry takes one fence through to its report.
func (r *Room) carry(ctx context.Context, t *target, f *run) {
	log := r.log.With(zap.String("node", t.name), zap.String("why", f.why))
	log.Warn("fencing begins")
	rep := Report{Node: t.name, Began: f.began}
	for i := range t.levels {
		if ctx.Err() != nil {
			break
		}
		t.mu.Lock()
		f.level = i + 1
		t.mu.Unlock()
		var said string
		rep.Outcome, rep.Device, said = t.try(ctx, i, t.order(f.why))
		log.Warn("level of devices tried", zap.Int("level", i+1), zap.String("device", rep.Device), zap.Stringer("outcome", rep.Outcome), zap.String("reason", said))
		t.mu.Lock()
		f.failed = append(f.failed, fmt.Sprintf("level %d: %s", i+1, said))
		t.mu.Unlock()
		if rep.Outcome == Confirmed {
			break
		}
	}
	r.settle(ctx, t, f, rep)
	f.end(nil)
	log.Warn("fencing ends", zap.Stringer("outcome", f.report.Outcome), zap.String("device", f.report.Device), zap.Duration("took", f.report.Took))
	r.keep(f.report)
	close(f.done)
}

// settle makes the report of a fence whose last level said rep, and takes the
// fence off its node.
func (r *Room) settle(ctx context.Context, t *target, f *run, rep Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	said := f.failed
	switch {
	case rep.Outcome == Confirmed:
	case f.word != nil:
		rep.Outcome, rep.Device = Confirmed, manualName
		said = append(said, f.word.text())
		if f.word.at.Before(rep.Began) {
			rep.Began = f.word.at
		}
	case ctx.Err() != nil:
		rep.Outcome = Unknown
		if cause := context.Cause(ctx); !errors.Is(cause, errNobodyWaits) {
			said = append(said, "broken off: "+errClosed.Error())
		} else {
			said = append(said, "broken off: "+cause.Error())
		}
	}
	rep.Reason = bounded(strings.Join(said, "; "), reasonMax)
	rep.Took = time.Since(f.began)
	f.report = rep
	t.run, t.last = nil, &f.report
	t.ends[rep.Outcome]++
}

// try asks the devices of a level, one after the other, until one does not
// confirm. It returns what that one said, or Confirmed and what all said.
func (t *target) try(ctx context.Context, level int, o device.Order) (out Outcome, names, said string) {
	var asked, reasons []string
	out = Unknown
	for _, b := range t.levels[level] {
		var reason string
		out, reason = b.off(ctx, o)
		asked = append(asked, b.Name())
		reasons = append(reasons, b.Name()+": "+out.String()+": "+reason)
		if out != Confirmed {
			return out, b.Name(), strings.Join(reasons, ", ")
		}
	}
	return out, strings.Join(asked, " + "), strings.Join(reasons, ", ")
}

// bounded cuts a text at most n bytes long, in the middle: how it began and how
// it ended are both of interest.
func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const gap = " ... "
	half := (n - len(gap)) / 2
	return strings.ToValidUTF8(s[:half], "") + gap + strings.ToValidUTF8(s[len(s)-half:], "")
}
