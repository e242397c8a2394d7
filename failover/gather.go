package failover

import (
	"fmt"
	"strings"
	"time"

	"hapair/failover/lease"
	"hapair/failover/plan"
	"hapair/mirror/state"
)

// memory is what a controller knows that no room reports: its own grant,
// failures, what the peer hinted, since when things are as they are. It is
// guarded by Controller.mu.
type memory struct {
	started time.Duration
	tenure  lease.Token // granted to this process
	devices []string    // of the last promotion of the mirror

	record      plan.Record // the newest seen, in an answer or by reading
	recordKnown bool
	discards    int           // ledgers that this node has given up: tokens of two are not compared
	recordSince time.Duration // when its Primary changed
	lastPrimary string

	connection  state.Connection
	mirrorSince time.Duration
	verdict     plan.Verdict
	peerPrimary time.Duration // when the peer last told that it is

	services plan.ServiceState // as last seen

	asked      bool // the lease is being asked for
	lapse      lapse
	hinted     bool // the peer was told to take it, or asked to give it
	hint       plan.Hint
	failures   *plan.FailureLog
	peerFailed plan.Failures // as it told
	failback   failback
	stopFailed bool
	trouble    plan.Trouble
	leaving    bool // the agent stops in order
	owed       bool // a forced demotion that the ledger does not know of
	request    *request
	denied     error // what the peer asked for came to nothing: to be told
}

// lapse is a majority's word about the Primary of one tenure.
type lapse struct {
	tenure lease.Token
	asked  time.Duration
	lapsed bool
	since  time.Duration
}

// failback is what is remembered of going back to the preferred node by itself.
type failback struct {
	fit   time.Duration // since when that is due but for the time; 0: it is not
	tries int
	at    time.Duration // the last time
}

// recent is how often it went back lately: what lasted is forgotten.
func (f failback) recent(now, after time.Duration) int {
	if f.tries == 0 || now >= f.at+4*after<<min(f.tries, 12) {
		return 0
	}
	return f.tries
}

// record returns the newest record this node has seen: an answer of the
// leader may be ahead of the copy that is read here.
func (c *Controller) record() plan.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.record
}

// Discarded says that this node's ledger was given up for the peer's, which counts its
// tokens by itself: whatever was seen of the old one is forgotten, and an answer of it
// that is still to come is not taken. It does not block.
func (c *Controller) Discarded() {
	c.mu.Lock()
	c.mu.discard()
	c.mu.Unlock()
	c.note(Entry{Kind: EntryRecord, Text: "the ledger of this node was discarded; the peer's counts"})
	c.Wake("ledger discarded")
}

// discard forgets what the ledger said, what this process was granted by it, and what
// was asked or told because of it. What failed, what an operator wants, and a lease that
// is to be handed back stay.
func (m *memory) discard() {
	m.discards++
	m.record, m.recordKnown, m.lastPrimary = plan.Record{}, false, ""
	m.tenure, m.lapse, m.hinted, m.hint, m.owed = 0, lapse{}, false, plan.Hint{}, false
}

// ledger names the ledger that is read and changed now.
func (c *Controller) ledger() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.discards
}

// look reads the world, notes what changed since the last look, and returns
// the view to decide by.
func (c *Controller) look() plan.View {
	ledger := c.ledger()
	v := c.read()
	c.mu.Lock()
	if c.mu.discards != ledger { // it was read before; there is another look soon
		v.Ledger.Record, v.Ledger.Known = plan.Record{}, false
	}
	causes := strings.Join(c.mu.causes, ", ")
	c.mu.causes = c.mu.causes[:0]
	m := &c.mu.memory
	changes := m.follow(&v, causes)
	m.fill(&v)
	switch fit := plan.Fit(v); {
	case !fit:
		m.failback.fit = 0
	case m.failback.fit == 0:
		m.failback.fit = v.Now
	}
	v.Failback.Fit = m.failback.fit
	c.mu.Unlock()
	for _, e := range changes {
		c.note(e)
	}
	c.story.looks(v)
	return v
}

// read asks every room. It takes no lock: a room may call Wake meanwhile.
func (c *Controller) read() plan.View {
	n, res := c.needs, c.cfg.Resource
	mv := n.Mirror.View(res)
	v := plan.View{Resource: res, Now: c.cfg.Clock(), Settings: c.cfg.Settings, Mirror: mv.State}
	if c.cfg.Arbitration != nil {
		v.Settings.Arbitration = c.cfg.Arbitration()
	}
	v.Self = plan.Node{
		Name: c.cfg.Self, Role: mv.Role, Disk: mv.Disk, Suspect: mv.Suspect, Tenure: mv.Tenure,
		Standby: n.Marks.Marked(MarkStandby(c.cfg.Self)), AssumeClean: mv.AssumeClean,
	}
	v.Peer = plan.Peer{
		Name: c.cfg.Peer, Told: mv.PeerTold, Role: mv.PeerRole, Disk: mv.PeerDisk, Suspect: mv.PeerSuspect,
		AssumeClean: mv.PeerAssumeClean, Standby: n.Marks.Marked(MarkStandby(c.cfg.Peer)), Left: n.Marks.Marked(MarkLeft(res, c.cfg.Peer)),
	}
	v.Peer.Verdict, v.Peer.Reasons, v.Peer.Since = n.Heartbeat.Peer(c.cfg.Peer)
	v.Ledger.Record, v.Ledger.Known = n.Ledger.Record(res)
	v.Ledger.Quorum, v.Ledger.Answers, v.Ledger.Alone, v.Ledger.Split = n.Group.Quorum(), n.Group.Answers(), n.Group.Alone(), n.Group.Split()
	v.Lease.Own, v.Lease.PeerLapsed = n.Leases.Lease(res), n.Leases.PromiseLapsed(res)
	v.Failback.Stay = n.Marks.Marked(MarkStay(res))
	v.Maintenance, v.Down = n.Marks.Marked(MarkMaintenance), n.Marks.Marked(MarkDown(res))
	if n.Fencer != nil {
		v.Fence = n.Fencer.View()
	}
	if n.Services != nil {
		v.Services.State, v.Services.FailedName, v.Services.Failed = n.Services.State()
	}
	return v
}

// follow notes what changed against the last look.
func (m *memory) follow(v *plan.View, causes string) (changes []Entry) {
	r := v.Ledger.Record
	if v.Ledger.Known && (!m.recordKnown || r.Token > m.record.Token) {
		if e, ok := m.newRecord(r, v.Now, !m.recordKnown); ok {
			e.Cause = causes
			changes = append(changes, e)
		}
	}
	if v.Peer.Told && v.Peer.Role == state.Primary {
		m.peerPrimary = v.Now
	}
	if conn := v.Mirror.Connection; conn != m.connection {
		m.connection, m.mirrorSince = conn, v.Now
	}
	if v.Peer.Verdict != m.verdict {
		changes = append(changes, Entry{
			Kind: EntryPeer, Text: fmt.Sprintf("%s: was %s, now %s", v.Peer.Name, m.verdict, v.Peer.Verdict), Cause: strings.Join(v.Peer.Reasons, ", "),
		})
		m.verdict = v.Peer.Verdict
	}
	// A failed start is counted by its step. What is gone after the lease went with it:
	// a process that stood still finds its addresses taken away. In maintenance an
	// administrator may have stopped it.
	if v.Services.State == plan.Broken && m.services == plan.Started && v.Lease.Own.Valid(v.Now) && !v.Maintenance {
		m.failures.Add(v.Now, v.Services.FailedName, v.Services.Failed)
	}
	m.services = v.Services.State
	if !v.Lease.PeerLapsed {
		m.lapse = lapse{}
	}
	return changes
}

// newRecord takes over a newer record.
func (m *memory) newRecord(r plan.Record, now time.Duration, first bool) (Entry, bool) {
	was := m.record
	m.record, m.recordKnown = r, true
	if r.Primary != was.Primary || first {
		m.recordSince = now
		if was.Primary != "" {
			m.lastPrimary = was.Primary
		}
	}
	if r.Primary != "" {
		m.hinted, m.hint = false, plan.Hint{}
		m.lastPrimary = r.Primary
	}
	text := fmt.Sprintf("record: Primary was %s, now %s; in sync was %s, now %s", orNone(was.Primary), orNone(r.Primary),
		orNone(strings.Join(was.InSync, " ")), orNone(strings.Join(r.InSync, " ")))
	return Entry{Kind: EntryRecord, Text: text, Token: r.Token}, r.Token != 0
}

// fill adds to the view what only the memory knows.
func (m *memory) fill(v *plan.View) {
	v.Started, v.Tenure, v.Hinted, v.Hint, v.Trouble = m.started, m.tenure, m.hinted, m.hint, m.trouble
	v.Ledger.Old = v.Ledger.Record
	v.Ledger.Record, v.Ledger.Since = m.record, m.recordSince
	if v.Ledger.Record.LastPrimary == "" {
		v.Ledger.Record.LastPrimary = m.lastPrimary
	}
	v.Ledger.Known = m.recordKnown
	v.Mirror.Since, v.Peer.PrimaryAt = m.mirrorSince, m.peerPrimary
	v.Self.Failed, v.Peer.Failed = m.failures.Worst(v.Now), m.peerFailed
	v.Services.StopFailed = m.stopFailed
	v.Failback.Fit, v.Failback.Tries, v.Failback.At = m.failback.fit, m.failback.recent(v.Now, v.Settings.FailbackAfter), m.failback.at
	m.owed = m.owed && m.record.Primary == v.Self.Name // else others have decided meanwhile
	v.Owed = m.owed
	v.Self.Standby = v.Self.Standby || m.leaving
	v.Lease.Asked = m.asked
	if m.lapse.tenure == m.record.Tenure && v.Lease.PeerLapsed {
		v.Lease.LookedAt = m.lapse.asked
		// an old answer is no answer: the Primary may have renewed since
		v.Lease.MajorityLapsed = m.lapse.lapsed && v.Now <= m.lapse.asked+v.Settings.LapseLook
		v.Lease.LapsedSince = m.lapse.since
	}
	if m.request != nil {
		v.Wish = m.request.wish
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
