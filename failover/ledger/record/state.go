package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Founder says who started an incarnation of the ledger, and why.
type Founder struct {
	Incarnation uint64 `json:"incarnation"`
	Node        string `json:"node,omitempty"` // "" for the first, from the configuration
	Reason      string `json:"reason,omitempty"`
	// Apart: Node had not rejoined the group that it left, which goes on by itself
	// and is not superseded.
	Apart bool `json:"apart,omitempty"`
	// Index and Term say from which entry Node left a group that may go on without it:
	// the last that it had (R27). They are 0 where the rest cannot go on.
	Index uint64 `json:"index,omitempty"`
	Term  uint64 `json:"term,omitempty"`
}

// Forced is one forced change, kept for the operator.
type Forced struct {
	Resource string `json:"resource"`
	Node     string `json:"node"`
	Reason   string `json:"reason,omitempty"`
	Before   Record `json:"before"`
	At       int64  `json:"at,omitempty"`
}

// Fence is one outcome of fencing a node.
type Fence struct {
	Node    string `json:"node"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
	At      int64  `json:"at,omitempty"`
}

type remembered struct {
	ID     string `json:"id"`
	Answer Answer `json:"answer"`
}

// State is everything the ledger knows. It is not safe for concurrent use.
type State struct {
	Version     int               `json:"version"`
	Incarnation uint64            `json:"incarnation"`
	Lineage     []Founder         `json:"lineage,omitempty"` // newest last
	Records     map[string]Record `json:"records,omitempty"`
	Marks       map[string]string `json:"marks,omitempty"` // maintenance: node or resource -> reason
	ForcedLog   []Forced          `json:"forced,omitempty"`
	Fences      []Fence           `json:"fences,omitempty"`
	Answers     []remembered      `json:"answers,omitempty"` // oldest first
}

const stateVersion = 1

// NewState returns the state before any command under an incarnation.
func NewState(incarnation uint64, lineage []Founder) *State {
	return &State{
		Version: stateVersion, Incarnation: incarnation, Lineage: slices.Clone(lineage),
		Records: map[string]Record{}, Marks: map[string]string{},
	}
}

// Founder returns the node that started the incarnation, and whether it is
// still remembered.
func (s *State) Founder(incarnation uint64) (string, bool) { return FounderOf(s.Lineage, incarnation) }

// FounderOf looks an incarnation up in a lineage.
func FounderOf(lineage []Founder, incarnation uint64) (string, bool) {
	f, ok := Founding(lineage, incarnation)
	return f.Node, ok
}

// Founding looks up who started an incarnation, and how.
func Founding(lineage []Founder, incarnation uint64) (Founder, bool) {
	for _, f := range lineage {
		if f.Incarnation == incarnation {
			return f, true
		}
	}
	return Founder{}, false
}

// GoAlone starts the next incarnation, founded by node; apart: see Founder. Then
// the incarnation that was left is none of the new one's history: voters of a
// release that does not know Apart find by that, too, that they are not superseded.
func (s *State) GoAlone(node, reason string, apart bool) { s.Fork(node, reason, apart, 0, 0) }

// Fork is GoAlone away from a group that may go on without node, after the entry of
// an index and a term.
func (s *State) Fork(node, reason string, apart bool, index, term uint64) {
	if apart {
		s.Lineage = slices.DeleteFunc(slices.Clone(s.Lineage), func(f Founder) bool { return f.Incarnation == s.Incarnation })
	}
	s.Incarnation++
	s.Lineage = keepLast(append(s.Lineage, Founder{s.Incarnation, node, reason, apart, index, term}), keepFounders)
}

// Fenced keeps a confirmed fence: nobody is Primary any more of what f.Node was
// Primary of.
func (s *State) Fenced(f Fence) {
	for name, r := range s.Records {
		if r.Primary == f.Node {
			r.Primary = ""
			r.Token++
			s.Records[name] = r
		}
	}
	s.Fences = keepLast(append(s.Fences, f), keepFences)
}

// Apply carries out one command and returns its answer. A command whose ID has
// been answered before changes nothing and gets the first answer again.
func (s *State) Apply(c Command) Answer {
	for i := range s.Answers {
		if s.Answers[i].ID == c.ID {
			return s.Answers[i].Answer
		}
	}
	a := s.decide(c)
	a.Record = a.Record.Clone()
	s.Answers = keepLast(append(s.Answers, remembered{c.ID, a}), rememberAnswers)
	return a
}

func (s *State) decide(c Command) Answer {
	if err := c.Check(); err != nil {
		return Answer{Refused: RefusedInvalid, Detail: err.Error()}
	}
	switch c.Kind {
	case Mark:
		return s.mark(c)
	case Unmark:
		delete(s.Marks, c.Resource)
		return Answer{Record: s.Records[c.Resource]}
	case FenceLog:
		s.Fences = keepLast(append(s.Fences, Fence{c.Node, c.Outcome, c.Reason, c.At}), keepFences)
		return Answer{}
	default: // changes a record
	}
	have, known := s.Records[c.Resource]
	if !known && len(s.Records) >= MaxResources {
		return Answer{Refused: RefusedInvalid, Detail: fmt.Sprintf("already %d resources", MaxResources)}
	}
	if have.Token != c.Expect {
		return Answer{Record: have, Refused: RefusedStale}
	}
	next, refused := change(have.Clone(), c)
	if refused != "" {
		return Answer{Record: have, Refused: refused}
	}
	if next.Equal(have) {
		return Answer{Record: have}
	}
	next.Token++
	if c.Kind == Promote {
		next.Tenure = next.Token
	}
	if c.Kind == Force {
		s.ForcedLog = keepLast(append(s.ForcedLog, Forced{c.Resource, c.Node, c.Reason, have, c.At}), keepForced)
	}
	s.Records[c.Resource] = next
	return Answer{Record: next}
}

// change returns the record as the command wants it, Token and Tenure aside.
func change(r Record, c Command) (Record, Refusal) {
	switch c.Kind {
	case Promote:
		if !r.Has(c.Node) {
			return r, RefusedNotInSync
		}
		// A node promoted again gets a new tenure: that is a change.
		r.Primary, r.Tenure = c.Node, 0
	case Demote:
		if r.Primary != c.Node {
			return r, RefusedNotPrimary
		}
		r.Primary = ""
	case GiveUp:
		switch {
		case r.Primary != c.Node:
			return r, RefusedNotPrimary
		case r.Has(c.Node) && len(r.InSync) == 1:
			return r, RefusedLastCopy
		}
		r.InSync = slices.DeleteFunc(r.InSync, func(n string) bool { return n == c.Node })
	case Exclude:
		if r.Has(c.Node) && (len(r.InSync) == 1 || r.Primary == c.Node) {
			// The Primary's copy is where answered writes go: nobody else takes it out.
			return r, RefusedLastCopy
		}
		r.InSync = slices.DeleteFunc(r.InSync, func(n string) bool { return n == c.Node })
	case Include:
		if len(r.InSync) == 0 {
			// Before Declare nothing says which copy is good.
			return r, RefusedNotInSync
		}
		if !r.Has(c.Node) && len(r.InSync) >= MaxNodes {
			return r, RefusedInvalid
		}
		r.InSync = set(append(r.InSync, c.Node))
	case Declare:
		if len(r.InSync) != 0 {
			return r, RefusedDeclared
		}
		r.InSync = set(slices.Clone(c.Nodes))
	case Force:
		r.Primary, r.InSync = "", []string{c.Node}
	default: // Mark, Unmark and FenceLog leave records alone, see decide
	}
	return r, ""
}

func (s *State) mark(c Command) Answer {
	if _, ok := s.Marks[c.Resource]; !ok && len(s.Marks) >= MaxMarks {
		return Answer{Refused: RefusedInvalid, Detail: fmt.Sprintf("already %d maintenance marks", MaxMarks)}
	}
	s.Marks[c.Resource] = c.Reason
	return Answer{Record: s.Records[c.Resource]}
}

func set(nodes []string) []string {
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

func keepLast[T any](s []T, n int) []T {
	if len(s) > n {
		return slices.Clone(s[len(s)-n:])
	}
	return s
}

// Clone returns a deep copy.
func (s *State) Clone() *State {
	c := *s
	c.Lineage = slices.Clone(s.Lineage)
	c.Marks = maps.Clone(s.Marks)
	c.ForcedLog, c.Fences, c.Answers = slices.Clone(s.ForcedLog), slices.Clone(s.Fences), slices.Clone(s.Answers)
	c.Records = make(map[string]Record, len(s.Records))
	for name, r := range s.Records {
		c.Records[name] = r.Clone()
	}
	return &c
}

// Encode returns the canonical bytes of the state.
func (s *State) Encode() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode ledger state: %w", err)
	}
	if len(b) > MaxStateBytes {
		return nil, fmt.Errorf("encode ledger state: %d bytes, at most %d", len(b), MaxStateBytes)
	}
	return b, nil
}

// ErrState says that bytes are not a ledger state this version can use.
var ErrState = errors.New("not a ledger state")

// DecodeState reads what Encode wrote and checks it.
func DecodeState(b []byte) (*State, error) {
	if len(b) > MaxStateBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrState, len(b), MaxStateBytes)
	}
	s := NewState(0, nil)
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("%w: format %d, this version knows %d", ErrState, s.Version, stateVersion)
	}
	if s.Records == nil {
		s.Records = map[string]Record{}
	}
	if s.Marks == nil {
		s.Marks = map[string]string{}
	}
	for name, r := range s.Records {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("%w: resource %s: %w", ErrState, name, err)
		}
	}
	return s, nil
}

func (r Record) check() error {
	switch {
	case r.Token == 0 || r.Tenure > r.Token:
		return fmt.Errorf("token %d, tenure %d", r.Token, r.Tenure)
	case r.Primary != "" && r.Tenure == 0:
		return fmt.Errorf("primary %s without tenure", r.Primary)
	case !slices.Equal(r.InSync, set(slices.Clone(r.InSync))):
		return fmt.Errorf("in-sync set %q is not sorted", r.InSync)
	}
	return nil
}
