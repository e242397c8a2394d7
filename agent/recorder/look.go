package recorder

import (
	"cmp"
	"slices"
	"time"

	"hapair/agent/recorder/story"
)

// Story is all that a node knows.
type Story struct {
	Entries []story.Entry // in the one order
	Gaps    []story.Gap
	Sources []Source // this node first, the others by name
	Disk    Disk
}

// Source is what is known of one node's record.
type Source struct {
	Node        string
	Self        bool
	First, Last *story.Entry // nil: none is kept
	Following   bool         // every entry of it comes here as it is made
	Since       time.Time    // of following, or of not
	Older       bool         // its release keeps no record
	Err         error        // why it is not followed
	Skew        time.Duration
	SkewKnown   bool // else it was not measured
}

// Disk is how this node's files are.
type Disk struct {
	Loaded  bool   // what earlier lives left has been read
	Waiting int    // entries on their way
	Dropped uint64 // entries that are not there
	Err     error
}

// Look tells the story.
func (r *Recorder) Look() Story {
	var s Story
	r.mu.Lock()
	for _, list := range r.mu.kept {
		for _, e := range list {
			s.Entries = append(s.Entries, *e)
		}
	}
	s.Sources = append(s.Sources, r.source(r.cfg.Self))
	for node := range r.mu.sources {
		s.Sources = append(s.Sources, r.source(node))
	}
	r.mu.Unlock()
	slices.SortFunc(s.Sources[1:], func(a, b Source) int { return cmp.Compare(a.Node, b.Node) })
	s.Entries = story.Tell(s.Entries)
	s.Gaps = story.Gaps(s.Entries)
	s.Disk = r.disk.look()
	return s
}

// source describes one; mu is held.
func (r *Recorder) source(node string) Source {
	out := Source{Node: node, Self: node == r.cfg.Self}
	if list := r.mu.kept[node]; len(list) > 0 {
		out.First, out.Last = list[0], list[len(list)-1]
	}
	if s := r.mu.sources[node]; s != nil {
		out.Following, out.Since, out.Older, out.Err = s.following, s.since, s.older, s.err
		out.Skew, out.SkewKnown = s.skew, s.skewKnown
	}
	return out
}

func (d *disk) look() Disk {
	out := Disk{Waiting: len(d.in), Dropped: d.dropped.Load()}
	select {
	case <-d.loaded:
		out.Loaded = true
	default:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out.Err = d.trouble
	return out
}
