package fencing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"hapair/fencing/device"
)

// word is what an operator says: the node is off, and he has seen it.
type word struct {
	who string
	at  time.Time
}

func (w *word) text() string { return "confirmed by the operator " + w.who }

// wordLasts is how long a word about a fence that failed waits for the next
// fence of that node.
const wordLasts = 5 * time.Minute

// ErrNothingToConfirm is wrapped by Confirm's error when no fence of the node
// waits, and the last one did not fail.
var ErrNothingToConfirm = errors.New("no fence of it waits or has failed")

// Confirm takes the word of an operator, who, that node is off: it ends the fence
// of node that is under way as Confirmed, whatever its devices do. When none is,
// and the last one failed or is being broken off, the word is kept for the next one,
// at most 5 minutes, until Met. In all other cases it is refused.
func (r *Room) Confirm(node, who string) error {
	t := r.nodes[node]
	if t == nil {
		return r.noDevice(node)
	}
	w := &word{who: who, at: time.Now()}
	rep, err := t.take(w)
	if err != nil {
		return err
	}
	r.log.Warn("an operator confirms that the node is off", zap.String("node", node), zap.String("who", who))
	if rep != nil {
		r.keep(*rep)
	}
	return nil
}

// take hands a word to the fence under way, or keeps it; then there is a report.
func (t *target) take(w *word) (*Report, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.run != nil && t.run.waiters == 0: // it is told to nobody what becomes of that one
		t.word = w
		return nil, nil
	case t.run != nil:
		t.run.word = w
		t.run.end(errWord)
		return nil, nil
	case t.last == nil || t.last.Outcome == Confirmed:
		return nil, fmt.Errorf("%s: %w", t.name, ErrNothingToConfirm)
	}
	t.word = w
	t.last = &Report{Node: t.name, Outcome: Confirmed, Device: manualName, Began: w.at,
		Reason: bounded(t.last.Reason+"; "+w.text(), reasonMax)}
	t.ends[Confirmed]++
	return t.last, nil
}

// Met says that this node is in contact with node: an operator's word that was
// given before, and not used, says nothing about now, nor does what the devices have
// said of it: they are monitored when it begins.
func (r *Room) Met(node string) {
	t := r.nodes[node]
	if t == nil {
		return
	}
	t.mu.Lock()
	t.word = nil
	began := !t.heard
	if began {
		t.heard, t.met = true, time.Now()
	}
	t.mu.Unlock()
	if !began {
		return
	}
	for b := range t.all() {
		b.monitorNow()
	}
}

// Parted says that this node is not in contact with node any more.
func (r *Room) Parted(node string) {
	if t := r.nodes[node]; t != nil {
		t.mu.Lock()
		t.heard = false
		t.mu.Unlock()
	}
}

// order is what the devices of the node are asked.
func (t *target) order(why string) device.Order {
	t.mu.Lock()
	defer t.mu.Unlock()
	return device.Order{Node: t.name, Why: why, Met: t.met}
}

const manualName = "manual"

// manual is the device that is an operator.
type manual struct{}

// Manual returns the device that waits for an operator's word, given to Confirm,
// for as long as it is let.
func Manual() device.Device { return manual{} }

func isManual(d device.Device) bool {
	_, yes := d.(manual)
	return yes
}

func (manual) Name() string { return manualName }

// Off waits: the word ends the whole fence, not only this device's part.
func (manual) Off(ctx context.Context, _ device.Order) (device.Outcome, string) {
	<-ctx.Done()
	return Unknown, "no operator confirmed it: " + context.Cause(ctx).Error()
}

// Monitor has nothing to look at.
func (manual) Monitor(context.Context) error { return nil }
