package failover

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"hapair/failover/lease"
)

// EntryKind says what a journal entry is about.
type EntryKind string

// The kinds of entries.
const (
	EntryPromoted  EntryKind = "promoted"  // the whole of a promotion, with its parts
	EntryDemoted   EntryKind = "demoted"   // the whole of a demotion
	EntryStep      EntryKind = "step"      // one step done
	EntryFailed    EntryKind = "failed"    // one step failed
	EntryOvertaken EntryKind = "overtaken" // one step came too late: the record had changed
	EntryWait      EntryKind = "wait"      // what is waited for changed
	EntryRequest   EntryKind = "request"   // an operator asked, or was answered
	EntryRecord    EntryKind = "record"    // the ledger's record changed
	EntryPeer      EntryKind = "peer"      // the verdict about the peer changed
	EntryHint      EntryKind = "hint"      // the peer told something
	EntryLost      EntryKind = "lost"      // authority was lost
)

// Part is one share of a duration.
type Part struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took"`
}

// Entry is one line of the timeline. At is on this node's lease.Clock, Wall
// for people and for merging the timelines of two nodes.
type Entry struct {
	Seq      uint64        `json:"seq"`
	At       time.Duration `json:"at"`
	Wall     time.Time     `json:"wall"`
	Resource string        `json:"resource"`
	Node     string        `json:"node"`
	Kind     EntryKind     `json:"kind"`
	Token    lease.Token   `json:"token"`
	Text     string        `json:"text"`
	Cause    string        `json:"cause,omitempty"`
	Took     time.Duration `json:"took,omitempty"`
	Parts    []Part        `json:"parts,omitempty"`
	Count    int           `json:"count"`              // how often in a row; At and Wall are of the last
	Answered bool          `json:"answered,omitempty"` // of EntryFailed: an operator asked for it and was told
}

// String returns the line operators read.
func (e Entry) String() string {
	var b strings.Builder
	b.WriteString(e.Text)
	if e.Took > 0 {
		fmt.Fprintf(&b, ", %s", seconds(e.Took))
	}
	for i, p := range e.Parts {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s %.1f", sep, p.Name, p.Took.Seconds())
	}
	if e.Cause != "" {
		fmt.Fprintf(&b, " (%s)", e.Cause)
	}
	if e.Count > 1 {
		fmt.Fprintf(&b, " ×%d", e.Count)
	}
	return b.String()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// journalEntries bounds what a controller remembers: some hours of trouble,
// about 100 KiB.
const journalEntries = 512

// Journal is a bounded ring of entries. It is safe for concurrent use.
type Journal struct {
	mu   sync.Mutex
	ring []Entry
	last uint64 // sequence number of the last entry, 0 for none
}

// add stores the entry. One that says the same as the last is counted there
// instead; fresh tells which it was.
func (j *Journal) add(e Entry) (stored Entry, fresh bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.last > 0 {
		last := &j.ring[(j.last-1)%journalEntries]
		same := last.Kind == e.Kind && last.Text == e.Text && last.Cause == e.Cause && last.Token == e.Token
		if same && len(e.Parts) == 0 {
			last.At, last.Wall, last.Took = e.At, e.Wall, e.Took
			last.Count++
			return *last, false
		}
	}
	e.Count = 1
	j.last++
	e.Seq = j.last
	if len(j.ring) < journalEntries {
		j.ring = append(j.ring, e)
	} else {
		j.ring[(j.last-1)%journalEntries] = e
	}
	return e, true
}

// Since returns the entries with a sequence number above seq, oldest first.
func (j *Journal) Since(seq uint64) []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []Entry
	first := uint64(1)
	if j.last > journalEntries {
		first = j.last - journalEntries + 1
	}
	for n := max(first, seq+1); n <= j.last; n++ {
		out = append(out, j.ring[(n-1)%journalEntries])
	}
	return out
}
