package service

import (
	"context"
	"fmt"

	"hapair/kernel/apart"
)

// StuckError is returned when a call did not return before the context ended.
// It goes on; the service's next operation waits for it.
type StuckError struct {
	What, Path string
	Cause      error
}

// Error says what still goes on.
func (e *StuckError) Error() string {
	return fmt.Sprintf("%s %s: still under way when time ran out: %v", e.What, e.Path, e.Cause)
}

// Unwrap returns why it was not waited for any longer.
func (e *StuckError) Unwrap() error { return e.Cause }

// calls are those of one service that may not return in time, one at a time.
type calls struct {
	stuck <-chan struct{} // closed when the one that was left alone returns; nil: none
}

// slowly makes system calls that no signal interrupts, apart, so that they hold
// up nobody but themselves: it waits for them no longer than ctx, and a killed
// process not at all. Calls that were left alone are awaited first; their
// result is moot.
func slowly[T any](ctx context.Context, c *calls, what, path string, call func() (T, error)) (T, error) {
	var none, result T
	if err := c.await(ctx, path); err != nil {
		return none, err
	}
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = apart.Do(func() (err error) {
			result, err = call()
			return err
		})
	}()
	select {
	case <-done:
		return result, err
	case <-ctx.Done():
		c.stuck = done
		return none, &StuckError{What: what, Path: path, Cause: context.Cause(ctx)}
	}
}

// slowly is the same for calls without a result.
func (c *calls) slowly(ctx context.Context, what, path string, call func() error) error {
	_, err := slowly(ctx, c, what, path, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// busy reports whether a call that was left alone has not returned yet.
func (c *calls) busy() bool {
	if c.stuck == nil {
		return false
	}
	select {
	case <-c.stuck:
		return false
	default:
		return true
	}
}

// await waits for a call that was left alone.
func (c *calls) await(ctx context.Context, path string) error {
	if c.stuck == nil {
		return nil
	}
	select {
	case <-c.stuck:
		c.stuck = nil
		return nil
	case <-ctx.Done():
		return &StuckError{What: "an earlier call on", Path: path, Cause: context.Cause(ctx)}
	}
}
