package plan

import (
	"fmt"
	"time"
)

// Arbitration is how a pair decides who goes on when one is gone.
type Arbitration uint8

// The ways to arbitrate (see safety.md of the documentation).
const (
	Witness Arbitration = iota // a third voter without data
	Manual                     // the operator
	Fencing                    // a confirmed fence
)

// String returns the word of the configuration.
func (a Arbitration) String() string { return word(int(a), "witness", "manual", "fencing") }

// Settings are the configured rules and times of one resource. The zero
// value is not usable; start from Defaults.
type Settings struct {
	Arbitration Arbitration
	Run         bool   // become Primary without being asked
	HasServices bool   // there are services to start
	Preferred   string // node to prefer when both could; "" for none

	FailbackAfter time.Duration // the preferred node must have been fit so long to get the resource back; 0: it does not

	ColdGrace     time.Duration // how long a node that just began waits for a peer in the in-sync set
	TakeoverDelay time.Duration // how long a living peer may resume before this node takes over
	PreferDelay   time.Duration // how long the node that was chosen may take to promote itself
	HandOverGrace time.Duration // how long the peer may take to follow a hand-over
	ForwardGrace  time.Duration // how long a Primary without a copy waits for the session with its peer
	RetryDelay    time.Duration // between two attempts at a failed step
	Failures      FailurePolicy // of what has none of its own
	LapsePoll     time.Duration // how often to look at a lease that should be running out
	LapseLook     time.Duration // how often to look at a lease of a Primary that looks well
	FenceDelay    time.Duration // how long a node that is not to win waits with its fence: longer than a fence takes
	FenceRetry    time.Duration // from a failed fence to the next; each further one twice as long, up to 8 times
}

// Defaults returns the settings of a crossover pair.
func Defaults() Settings {
	return Settings{
		ColdGrace:     30 * time.Second,
		TakeoverDelay: 250 * time.Millisecond,
		PreferDelay:   2 * time.Second,
		HandOverGrace: 10 * time.Second,
		ForwardGrace:  3 * time.Second,
		RetryDelay:    time.Second,
		Failures:      FailurePolicy{Threshold: 3, Within: 10 * time.Minute, Forget: 10 * time.Minute},
		LapsePoll:     50 * time.Millisecond,
		LapseLook:     time.Second,
		FenceDelay:    5 * time.Second,
		FenceRetry:    5 * time.Second,
	}
}

// Validate reports the first setting that cannot work.
func (s Settings) Validate() error {
	if s.Arbitration > Fencing {
		return fmt.Errorf("arbitration %d is none of witness, manual, fencing", s.Arbitration)
	}
	times := []struct {
		name string
		d    time.Duration
	}{
		{"cold grace", s.ColdGrace}, {"takeover delay", s.TakeoverDelay}, {"prefer delay", s.PreferDelay},
		{"hand-over grace", s.HandOverGrace}, {"forward grace", s.ForwardGrace}, {"retry delay", s.RetryDelay},
		{"lapse poll", s.LapsePoll}, {"lapse look", s.LapseLook},
		{"fence delay", s.FenceDelay}, {"fence retry", s.FenceRetry},
	}
	for _, t := range times {
		if t.d <= 0 || t.d > 24*time.Hour {
			return fmt.Errorf("%s %v: more than 0 and at most 24h would be right", t.name, t.d)
		}
	}
	if s.FailbackAfter < 0 || s.FailbackAfter > failbackMax || s.FailbackAfter > 0 && s.Preferred == "" {
		return fmt.Errorf("failback after %v to %q: 0 to 24h, and a node, would be right", s.FailbackAfter, s.Preferred)
	}
	if err := s.Failures.Validate(s.RetryDelay); err != nil {
		return fmt.Errorf("failures: %w", err)
	}
	return nil
}
