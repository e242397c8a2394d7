package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"hapair/agent/systemd"
)

// An agent that is empty because the machine goes down waits for its end, and is
// started again when the machine stays.
func TestMachineStaysUp(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(begins chan bool, cancel context.CancelFunc)
		stays   bool
		took    time.Duration
	}{
		"ended":         {func(_ chan bool, cancel context.CancelFunc) { cancel() }, false, time.Second},
		"called off":    {func(begins chan bool, _ context.CancelFunc) { begins <- false }, true, time.Second},
		"nothing comes": {func(chan bool, context.CancelFunc) {}, true, goesDownWithin},
		"the bus goes first": {func(begins chan bool, cancel context.CancelFunc) {
			close(begins)
			time.Sleep(time.Second)
			cancel()
		}, false, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begins := make(chan bool, 1)
				go func() {
					time.Sleep(time.Second)
					c.happens(begins, cancel)
				}()
				began := time.Now()
				err := (&agent{}).awaitEnd(ctx, &systemd.Shutdown{Begins: begins})
				if errors.Is(err, errStaysUp) != c.stays || c.stays != (err != nil) {
					t.Errorf("%v", err)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
			})
		})
	}
}
