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
	Fencing                    // a confirmed fence; not implemented
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

	ColdGrace     time.Duration // how long a node that just began waits for a peer in the in-sync set
	TakeoverDelay time.Duration // how long a living peer may resume before this node takes over
	PreferDelay   time.Duration // how long the node that was chosen may take to promote itself
	HandOverGrace time.Duration // how long the peer may take to follow a hand-over
	ForwardGrace  time.Duration // how long a Primary without a copy waits for the session with its peer
	RetryDelay    time.Duration // between two attempts at a failed step
	Attempts      int           // to bring the resource up, before the peer is asked
	FailureMemory time.Duration // how long failed attempts count
	LapsePoll     time.Duration // how often to look at a lease that should be running out
	LapseLook     time.Duration // how often to look at a lease of a Primary that looks well
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
		Attempts:      3,
		FailureMemory: 10 * time.Minute,
		LapsePoll:     50 * time.Millisecond,
		LapseLook:     time.Second,
	}
}

// Validate reports the first setting that cannot work.
func (s Settings) Validate() error {
	if s.Arbitration > Fencing {
		return fmt.Errorf("arbitration %d is none of witness, manual, fencing", s.Arbitration)
	}
	if s.Attempts < 1 || s.Attempts > 100 {
		return fmt.Errorf("attempts %d: 1 to 100 would be right", s.Attempts)
	}
	times := []struct {
		name string
		d    time.Duration
	}{
		{"cold grace", s.ColdGrace}, {"takeover delay", s.TakeoverDelay}, {"prefer delay", s.PreferDelay},
		{"hand-over grace", s.HandOverGrace}, {"forward grace", s.ForwardGrace}, {"retry delay", s.RetryDelay}, {"failure memory", s.FailureMemory},
		{"lapse poll", s.LapsePoll}, {"lapse look", s.LapseLook},
	}
	for _, t := range times {
		if t.d <= 0 || t.d > 24*time.Hour {
			return fmt.Errorf("%s %v: more than 0 and at most 24h would be right", t.name, t.d)
		}
	}
	if s.FailureMemory <= time.Duration(s.Attempts)*s.RetryDelay {
		return fmt.Errorf("failure memory %v is not longer than %d attempts every %v: a failing resource would never reach the peer",
			s.FailureMemory, s.Attempts, s.RetryDelay)
	}
	return nil
}
