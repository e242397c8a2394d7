package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"hapair/agent/apiv1"
	"hapair/failover/ledger"
)

// LedgerBegin has this node vote though its ledger was lost and not every other
// voter was met since.
func (b *backend) LedgerBegin(ctx context.Context, q apiv1.LedgerBeginRequest) (apiv1.Changed, error) {
	began, was := time.Now(), b.a.ledger.Status()
	unmet := strings.Join(was.Unmet, " and ")
	if !q.Checked && len(was.Unmet) > 0 {
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("%s was not met: what only it and this node had decided, as which copy is not current, would be forgotten", unmet),
			Hint: "start " + unmet + "; if it is gone for good: hactl ledger-begin --i-have-checked on this node"}
	}
	if err := b.a.ledger.Begin(ctx, q.Reason); errors.Is(err, ledger.ErrBlank) {
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: "start one of them, and see that this node reaches it"}
	} else if err != nil {
		return apiv1.Changed{}, problem(fmt.Errorf("ledger-begin: %w", err))
	}
	now := b.a.ledger.Status().State
	b.a.event(apiv1.EventOperator, "", fmt.Sprintf("ledger-begin: this node votes, without having met %s: %s", unmet, q.Reason))
	return apiv1.Changed{Node: b.a.self, Was: was.State, Now: now, TookMS: time.Since(began).Milliseconds(),
		Text: fmt.Sprintf("the ledger of %s: was %s, now %s", b.a.self, was.State, now)}, nil
}
