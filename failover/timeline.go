package failover

import (
	"fmt"
	"time"

	"hapair/failover/plan"
)

// story measures a promotion or a demotion from the first evidence to the
// end. It is owned by Controller.Run.
type story struct {
	need   time.Duration // since when this node saw reason to become Primary; 0: none
	raised bool          // a promotion is under way
	asked  time.Duration // the ledger was asked
	ledger time.Duration // it granted
	mirror time.Duration // the mirror was asked
	open   time.Duration // the devices were open
	why    string

	falling bool
	fell    time.Duration // the first step down
	parts   []Part
}

// looks notes since when the resource needs somebody.
func (s *story) looks(v plan.View) {
	r := v.Ledger.Record
	well := r.Primary == v.Self.Name && v.Tenure == r.Tenure ||
		r.Primary == v.Peer.Name && v.Peer.Verdict == plan.Alive && v.Peer.Told && !v.Lease.PeerLapsed
	switch {
	case well && !s.raised:
		s.need = 0
	case !well && s.need == 0:
		s.need = v.Now
	}
}

// begins notes the start of a step.
func (s *story) begins(v plan.View, kind plan.Kind, because string) {
	switch kind {
	case plan.LedgerPromote:
		from := s.need
		if v.Wish.Kind != plan.NoWish && v.Wish.Since > from || from == 0 {
			from = max(v.Wish.Since, from)
		}
		if from == 0 {
			from = v.Now
		}
		*s = story{need: from, raised: true, asked: v.Now, why: because}
	case plan.MirrorPromote:
		s.mirror = v.Now
	case plan.StopServices, plan.MirrorDemote, plan.LedgerDemote:
		if !s.falling {
			s.falling, s.fell, s.parts = true, v.Now, nil
		}
	case plan.StartServices:
		s.falling = false // it was a restart
	default: // no turn of the story
	}
}

// ends notes the end of a step that succeeded; the last one down is the end
// of a demotion.
func (s *story) ends(cfg Config, kind plan.Kind, now, took time.Duration) (Entry, bool) {
	switch kind {
	case plan.LedgerPromote:
		s.ledger = now
	case plan.MirrorPromote:
		s.open = now
	case plan.StopServices:
		s.parts = append(s.parts, Part{"services", took})
	case plan.MirrorDemote:
		s.parts = append(s.parts, Part{"mirror", took})
	case plan.LedgerDemote:
		s.parts = append(s.parts, Part{"ledger", took})
	case plan.AbortLost:
		*s = story{}
	case plan.ReleaseLease:
		if s.falling {
			e := Entry{Kind: EntryDemoted, Text: fmt.Sprintf("demoted %s on %s", cfg.Resource, cfg.Self), Took: now - s.fell, Parts: s.parts}
			*s = story{}
			return e, true
		}
	default: // told by the steps around it
	}
	return Entry{}, false
}

// settles returns the whole of a promotion once it is complete.
func (s *story) settles(cfg Config, v plan.View, d plan.Decision) (Entry, bool) {
	if !s.raised || s.open == 0 || d.Code != plan.CodeSettled {
		return Entry{}, false
	}
	parts := []Part{
		{"detect", s.asked - s.need}, {"ledger", s.ledger - s.asked}, {"lease", s.mirror - s.ledger}, {"mirror", s.open - s.mirror},
	}
	if v.Settings.HasServices {
		parts = append(parts, Part{"services", v.Now - s.open})
	}
	e := Entry{
		Kind: EntryPromoted, Text: fmt.Sprintf("promoted %s on %s, token %d", cfg.Resource, cfg.Self, v.Ledger.Record.Token),
		Token: v.Ledger.Record.Token, Took: v.Now - s.need, Parts: parts, Cause: s.why,
	}
	*s = story{}
	return e, true
}
