package fencing

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/fencing/device"
)

// bound is a device in its place, and what its last monitor said. A device is
// asked one thing at a time: many of them take one login only.
type bound struct {
	Bound
	turn chan struct{} // holds one token: whoever has it may ask the device
	soon chan struct{} // capacity 1: a monitor is wanted before its time

	mu         sync.Mutex
	stop       context.CancelCauseFunc // of the monitor under way; nil: none
	wanted     int                     // fences that want the device, or have it
	checked    time.Time
	checkedErr error
}

func newBound(b Bound) *bound {
	n := &bound{Bound: b, turn: make(chan struct{}, 1), soon: make(chan struct{}, 1)}
	n.turn <- struct{}{}
	return n
}

var (
	errFenceWanted = errors.New("a fence wants the device")
	errTimeout     = errors.New("took too long")
)

// off asks the device to turn the node off. A monitor under way is broken off
// for it.
func (b *bound) off(ctx context.Context, o device.Order) (Outcome, string) {
	b.want(1)
	defer b.want(-1)
	if b.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, b.Timeout, fmt.Errorf("%w: %s", errTimeout, b.Timeout))
		defer cancel()
	}
	select {
	case <-b.turn:
		defer func() { b.turn <- struct{}{} }()
	case <-ctx.Done():
		return Unknown, "the device is still busy with what it was asked before: " + context.Cause(ctx).Error()
	}
	if ctx.Err() != nil {
		return Unknown, "not asked: " + context.Cause(ctx).Error()
	}
	return b.Off(ctx, o)
}

func (b *bound) want(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wanted += n
	if b.stop != nil && b.wanted > 0 {
		b.stop(errFenceWanted)
	}
}

// monitorNow has the device monitored as soon as may be, if it is watched.
func (b *bound) monitorNow() {
	select {
	case b.soon <- struct{}{}:
	default:
	}
}

// watch monitors the device until ctx ends.
func (b *bound) watch(ctx context.Context, log *zap.Logger) {
	tick := time.NewTicker(b.Monitor)
	defer tick.Stop()
	for {
		b.check(ctx, log)
		select {
		case <-tick.C:
		case <-b.soon:
		case <-ctx.Done():
			return
		}
	}
}

// check runs one monitor, unless a fence wants the device: then nothing is
// learnt, and what was known stays.
func (b *bound) check(ctx context.Context, log *zap.Logger) {
	limit := b.Monitor
	if b.Timeout > 0 {
		limit = min(limit, b.Timeout)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: %s", errTimeout, limit))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if !b.monitorBegins(stop) {
		return
	}
	err := b.Device.Monitor(ctx)
	b.turn <- struct{}{}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stop = nil
	if cause := context.Cause(ctx); errors.Is(cause, errFenceWanted) || errors.Is(cause, context.Canceled) {
		return
	}
	changed := b.checked.IsZero() || (err == nil) != (b.checkedErr == nil)
	b.checked, b.checkedErr = time.Now(), err
	switch {
	case err != nil && changed:
		log.Warn("the fence device cannot be used", zap.Error(err))
	case changed:
		log.Info("the fence device can be used")
	}
}

// monitorBegins takes the turn for a monitor that stop breaks off.
func (b *bound) monitorBegins(stop context.CancelCauseFunc) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wanted > 0 {
		return false
	}
	select {
	case <-b.turn:
		b.stop = stop
		return true
	default:
		return false // a fence is just giving it back
	}
}

// usable returns nil when the last monitor succeeded.
func (b *bound) usable() (checked time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.checked.IsZero() {
		return b.checked, errors.New("not checked yet")
	}
	return b.checked, b.checkedErr
}

// Ready returns nil when node could be fenced now: all devices of some level
// were found usable by their last monitor. Otherwise it says what is wrong with
// each level.
func (r *Room) Ready(node string) error {
	t := r.nodes[node]
	if t == nil {
		return r.noDevice(node)
	}
	var errs []error
	for i, l := range t.levels {
		var level []error
		for _, b := range l {
			if _, err := b.usable(); err != nil {
				level = append(level, fmt.Errorf("level %d: %s: %w", i+1, b.Name(), err))
			}
		}
		if len(level) == 0 {
			return nil
		}
		errs = append(errs, level...)
	}
	return fmt.Errorf("no fence device of node %s can be used: %w", node, errors.Join(errs...))
}
