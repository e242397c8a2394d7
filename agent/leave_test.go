package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hapair/agent/config"
)

// All resources are left beside each other, each within its own bound, and each
// failure is told by name.
func TestLeaveAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("busy")
		a := &agent{leaves: []leave{
			{"pg", time.Minute, func(context.Context) error { time.Sleep(40 * time.Second); return nil }},
			{"web", time.Minute, func(context.Context) error { time.Sleep(50 * time.Second); return bad }},
			{"mail", 30 * time.Second, func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }},
		}}
		if within := a.leavesWithin(); within != time.Minute {
			t.Errorf("within %v", within)
		}
		began := time.Now()
		err := a.leaveAll(t.Context())
		if took := time.Since(began); took != 50*time.Second {
			t.Errorf("took %v", took)
		}
		if !errors.Is(err, bad) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "leave web: ") || strings.Contains(err.Error(), "pg") {
			t.Errorf("%v", err)
		}
	})
}

func TestLeavingMayTakeAsLongAsTheServices(t *testing.T) {
	r := &resource{conf: &config.Resource{Services: []config.Service{{StopTimeout: time.Minute}, {StopTimeout: 10 * time.Minute}}}}
	if got := r.leavesWithin(); got != leaveSlack+11*time.Minute {
		t.Errorf("%v", got)
	}
}
