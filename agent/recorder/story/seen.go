package story

import (
	"cmp"
	"slices"
)

// Bounds of what is remembered as known.
const (
	MaxSpans = 64  // of one life: holes beyond that are forgotten, the oldest first
	MaxLives = 256 // of all nodes together
)

// Span is a run of numbers, both ends included.
type Span struct {
	From uint64 `json:"a"`
	To   uint64 `json:"b"`
}

// Known says which entries of one life of one node are known.
type Known struct {
	Node  string `json:"n"`
	Life  uint64 `json:"l"`
	Spans []Span `json:"s"`
}

type life struct {
	node string
	life uint64
}

// Seen remembers which entries are known, also those that are no longer kept.
// The zero Seen knows none. It is not safe for concurrent use.
type Seen struct {
	lives map[life][]Span
	order []life // by when they were first seen
}

// Add notes an entry; false when it was known.
func (s *Seen) Add(node string, of, seq uint64) bool {
	if s.lives == nil {
		s.lives = map[life][]Span{}
	}
	key := life{node, of}
	spans, have := s.lives[key]
	if !have {
		s.admit(key)
	}
	// The first span that reaches at least to just before seq.
	i, _ := slices.BinarySearchFunc(spans, seq, func(x Span, n uint64) int {
		if x.To+1 < n {
			return -1
		}
		return 1
	})
	switch {
	case i < len(spans) && spans[i].From <= seq && seq <= spans[i].To:
		return false
	case i < len(spans) && spans[i].To+1 == seq:
		spans[i].To = seq
		if i+1 < len(spans) && spans[i+1].From == seq+1 {
			spans[i].To = spans[i+1].To
			spans = slices.Delete(spans, i+1, i+2)
		}
	case i < len(spans) && spans[i].From == seq+1:
		spans[i].From = seq
	default:
		spans = slices.Insert(spans, i, Span{seq, seq})
	}
	if len(spans) > MaxSpans {
		spans[1].From = spans[0].From
		spans = slices.Delete(spans, 0, 1)
	}
	s.lives[key] = spans
	return true
}

// admit makes room for another life.
func (s *Seen) admit(key life) {
	if len(s.order) == MaxLives {
		delete(s.lives, s.order[0])
		s.order = slices.Delete(s.order, 0, 1)
	}
	s.order = append(s.order, key)
}

// Has reports whether an entry is known.
func (s *Seen) Has(node string, of, seq uint64) bool {
	return slices.ContainsFunc(s.lives[life{node, of}], func(x Span) bool { return x.From <= seq && seq <= x.To })
}

// List returns all of it, by node and life.
func (s *Seen) List() []Known {
	out := make([]Known, 0, len(s.lives))
	for key, spans := range s.lives {
		out = append(out, Known{Node: key.node, Life: key.life, Spans: slices.Clone(spans)})
	}
	slices.SortFunc(out, func(a, b Known) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Life, b.Life)) })
	return out
}

// SeenOf is what another node says it knows.
func SeenOf(known []Known) *Seen {
	s := &Seen{lives: map[life][]Span{}}
	for _, k := range known {
		if _, twice := s.lives[life{k.Node, k.Life}]; len(s.order) < MaxLives && !twice {
			s.admit(life{k.Node, k.Life})
			s.lives[life{k.Node, k.Life}] = slices.Clone(k.Spans[:min(len(k.Spans), MaxSpans)])
		}
	}
	return s
}
