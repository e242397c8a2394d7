package failover

import (
	"hapair/failover/plan"
	"hapair/mirror/state"
)

// outcome judges whether the operator's wish in v has come to its end. A
// request asked of the wrong moment is refused by the plan; here are the ends
// that were worked for.
func (c *Controller) outcome(v plan.View, d plan.Decision) (err error, over bool) {
	self, r := c.cfg.Self, v.Ledger.Record
	switch w := v.Wish; {
	case w.Kind == plan.Switchover && w.Target != self && r.Primary == w.Target:
		return nil, true // however late that is
	case d.Refused != nil:
		return d.Refused, true
	case w.Kind == plan.Demote:
		released := v.Self.Role != state.Primary && v.Services.State == plan.Stopped
		if owes(&v) {
			return nil, released
		}
		return nil, released && r.Primary != self && !v.Lease.Asked && v.Ledger.Known
	case w.Kind == plan.Switchover && w.Target != self:
		return nil, false
	}
	return c.raised(v, d)
}

// owes tells whether the wish is a demotion that is complete without the ledger's
// knowledge: by force, and there is nobody to tell.
func owes(v *plan.View) bool {
	return v.Wish.Kind == plan.Demote && v.Wish.Force && !v.Ledger.Quorum && v.Ledger.Record.Primary == v.Self.Name
}

// raised judges a promotion of this node.
func (c *Controller) raised(v plan.View, d plan.Decision) (err error, over bool) {
	r := v.Ledger.Record
	mine := r.Primary == c.cfg.Self && r.Tenure == v.Tenure
	open := mine && v.Self.Role == state.Primary && v.Self.Tenure == r.Tenure
	switch {
	case open && d.Code == plan.CodeSettled:
		return nil, true
	case open && (d.Code == plan.CodeFailures || d.Code == plan.CodeMaintenance):
		return &Refusal{Code: d.Code, Text: d.Because, Hint: d.Hint}, true
	case mine && d.First().Kind == plan.LedgerDemote:
		return &Refusal{Code: plan.CodeFailures, Text: d.Because, Hint: "hactl status " + c.cfg.Resource}, true
	}
	return nil, false
}
