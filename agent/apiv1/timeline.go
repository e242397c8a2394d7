package apiv1

import "time"

// Timeline is one story of all nodes, as far as this one knows it: what each of
// them told happened, in an order that no wrong clock turns round. GET
// /v1/timeline.
type Timeline struct {
	Node    string          `json:"node"` // who tells it
	Time    time.Time       `json:"time"`
	Entries []TimelineEntry `json:"entries"`
	Gaps    []TimelineGap   `json:"gaps"`
	Sources []TimelineNode  `json:"sources"` // this node first
	// LeftOut counts the entries that fell to the limit of one answer, the oldest.
	LeftOut int `json:"left_out"`
	// Missing says in sentences what this story may lack.
	Missing []string `json:"missing"`
}

// TimelineEntry is one event, as the node kept it on which it happened.
type TimelineEntry struct {
	HLC      string            `json:"hlc"`  // hybrid logical time: milliseconds and a count; the order of entries
	Time     time.Time         `json:"time"` // by that node's clock
	Node     string            `json:"node"`
	Life     string            `json:"life"` // one run of its agent
	Seq      uint64            `json:"seq"`  // in that life, without holes
	Kind     string            `json:"kind"`
	Resource string            `json:"resource,omitempty"`
	Text     string            `json:"text"`
	Fields   map[string]string `json:"fields,omitempty"`
	// SkewMS is how far that node's clock was ahead of this one's, when the entry
	// came here.
	SkewMS int64 `json:"skew_ms,omitempty"`
}

// TimelineGap is a run of entries that this node lacks.
type TimelineGap struct {
	Node   string `json:"node"`
	Life   string `json:"life"`
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Before string `json:"before"` // the hlc of the entry that follows
}

// TimelineNode is what this node knows of one node's record.
type TimelineNode struct {
	Node      string     `json:"node"`
	Self      bool       `json:"self"`
	First     *time.Time `json:"first"` // of the entries kept, by its clock; null: none
	Last      *time.Time `json:"last"`
	Following bool       `json:"following"` // each of its entries comes here as it is made
	Since     *time.Time `json:"since"`     // of following, or of not, by this node's clock; null of this node
	Because   string     `json:"because"`   // why it is not followed
	SkewMS    int64      `json:"skew_ms"`   // how far its clock is ahead of this one's
	SkewKnown bool       `json:"skew_known"`
}

// FillLists replaces nil lists by empty ones.
func (t *Timeline) FillLists() {
	fill(&t.Entries)
	fill(&t.Gaps)
	fill(&t.Sources)
	fill(&t.Missing)
}

// TimelineQuery chooses from a story; zero values choose all.
type TimelineQuery struct {
	Resource string    // entries of it, and those of no resource
	Node     string    // entries of one node
	Since    time.Time // by the clock of the node that is asked
	Until    time.Time
}
