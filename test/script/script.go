// Package script is the language of scenarios, and plays them: files under
// scenarios/ say what happens to a pair and what must hold, and run unchanged
// wherever a pair runs that fits Lab. DESIGN.md has the language, and which of
// DRBD's tests and HAST's defects each file is about.
package script

import (
	"fmt"
	"strings"
	"time"
)

// The nodes and paths of every scenario. When it begins Alpha is Primary and
// serves, Beta is Secondary, both are in sync; Gamma is the witness.
const (
	Alpha = "alpha"
	Beta  = "beta"
	Gamma = "gamma"

	Crossover = "crossover"
	LAN       = "lan"
)

// Any and None stand for a data node in a Condition of Primary.
const (
	Any  = "any"
	None = "none"
)

// Scenario is one file.
type Scenario struct {
	Name    string   // of the file, without .txt
	Purpose string   // one sentence
	About   []string // whose test or defect it is about
	Seeds   []uint64 // of the simulator, which failed once: they always run
	Never   Never
	Steps   []Step
}

// Never is what must not happen while a scenario runs. In whichever lab, the
// first two are always watched for.
type Never struct {
	TwoPrimaries bool
	AckLost      bool
	Frozen       time.Duration // the longest time without an answer under load; 0: any
}

// StepKind says what a step does.
type StepKind int

// The kinds of steps.
const (
	Act     StepKind = iota + 1 // Action, which must be accepted
	Refused                     // Action, which must be refused
	Load                        // On or off
	Wait                        // For
	Await                       // Condition, within For
	Hold                        // Condition, all the time, for For
)

// Step is one line.
type Step struct {
	Line int
	Kind StepKind
	Action
	Condition Condition
	On        bool
	For       time.Duration
}

// Action is what is done to a node, or asked of it.
type Action struct {
	Verb Verb
	Node string
	Path string // of Cut and Heal
}

// Verb is the kind of an action.
type Verb int

// The verbs: the machine's, then the disk's, then the operator's.
const (
	PowerOff Verb = iota + 1
	PowerOn
	Kill // the agent alone
	Start
	Stop // in order
	Pause
	Resume
	Cut
	Heal
	DiskFails
	DiskHangs
	DiskIsSlow
	DiskWorks
	Promote
	Demote
	Switchover // to Node
	Connect
	Disconnect
	Attach
	Invalidate
	PauseSync
	ResumeSync
	Verify
	Repair
)

// What is a state of the pair.
type What int

// The states. Serving is to be Primary and to answer.
const (
	Primary    What = iota + 1 // Node serves; Any: somebody; None: nobody
	InSync                     // one serves, and both copies are current
	Alone                      // Node serves, and its copy is the only one in the set
	Target                     // a resync to Node runs, or is paused
	Frozen                     // Node is Primary and answers nothing for want of authority
	Forwarding                 // Node serves through its peer
	DiskGone                   // the disk of Node has failed
	Verified                   // the last verify that Node led has ended, and found no difference
	Answers                    // the application was given Count answers more
)

// Condition is a state that is waited for, or must last.
type Condition struct {
	What  What
	Node  string
	Count int
}

// String is the file's text, in its one form: without comments.
func (s *Scenario) String() string {
	out := new(strings.Builder)
	fmt.Fprintf(out, "scenario %s\n", s.Purpose)
	for _, a := range s.About {
		fmt.Fprintf(out, "about %s\n", a)
	}
	for _, n := range s.Seeds {
		fmt.Fprintf(out, "seed %d\n", n)
	}
	if s.Never.TwoPrimaries {
		out.WriteString("never two-primaries\n")
	}
	if s.Never.AckLost {
		out.WriteString("never ack-lost\n")
	}
	if s.Never.Frozen > 0 {
		fmt.Fprintf(out, "never frozen-longer-than %s\n", s.Never.Frozen)
	}
	out.WriteString("\n")
	for _, step := range s.Steps {
		fmt.Fprintln(out, step)
	}
	return out.String()
}

// String is the step as a line.
func (s Step) String() string {
	switch s.Kind {
	case Refused:
		return "expect refused " + s.Action.String()
	case Load:
		return "load " + map[bool]string{true: "on", false: "off"}[s.On]
	case Wait:
		return fmt.Sprintf("wait %s", s.For)
	case Await:
		return fmt.Sprintf("await %s within %s", s.Condition, s.For)
	case Hold:
		return fmt.Sprintf("hold %s for %s", s.Condition, s.For)
	default:
		return s.Action.String()
	}
}

// String is the action as it is written.
func (a Action) String() string {
	for _, f := range actions {
		if f.verb == a.Verb {
			return fill(f.words, a.Node, a.Path, 0)
		}
	}
	return fmt.Sprintf("action %d", a.Verb)
}

// String is the condition as it is written.
func (c Condition) String() string {
	for _, f := range conditions {
		if f.what == c.What {
			return fill(f.words, c.Node, "", c.Count)
		}
	}
	return fmt.Sprintf("condition %d", c.What)
}
