package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hapair/agent/api"
	"hapair/agent/apiv1"
	"hapair/failover/ledger"
)

// Without a majority a mark is refused as what it is, and long before the caller has
// waited for as long as a change may take.
func TestMarkWithoutQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _ := crashed(t)
		b := &backend{a}
		ctx, cancel := context.WithTimeout(t.Context(), api.DefaultWait)
		defer cancel()
		for what, mark := range map[string]func() (apiv1.Changed, error){
			"maintenance": func() (apiv1.Changed, error) { return b.Maintenance(ctx, apiv1.MaintenanceRequest{On: true}) },
			"standby":     func() (apiv1.Changed, error) { return b.Standby(ctx, apiv1.StandbyRequest{On: true}) },
		} {
			began := time.Now()
			_, err := mark()
			var p *apiv1.Problem
			if !errors.As(err, &p) || p.Code != apiv1.CodeNoQuorum || p.Hint == "" {
				t.Errorf("%s: %v", what, err)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("%s took %v", what, took)
			}
		}
	})
}

// What may have been set is no refusal: it stays a time-out.
func TestQuorumIsToldFromATimeout(t *testing.T) {
	var p *apiv1.Problem
	if err := markProblem(fmt.Errorf("mark: %w: %w", ledger.ErrNoQuorum, context.DeadlineExceeded)); !errors.As(err, &p) || p.Code != apiv1.CodeNoQuorum {
		t.Errorf("no quorum: %v", err)
	}
	if err := markProblem(fmt.Errorf("mark: %w: %w", ledger.ErrUnknownOutcome, context.DeadlineExceeded)); errors.As(err, &p) && p.Code == apiv1.CodeNoQuorum || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("unknown outcome: %v", err)
	}
}
