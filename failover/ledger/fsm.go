package ledger

import (
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"hapair/failover/ledger/record"
)

// applied is what the state machine answers to raft.
type applied struct {
	answer record.Answer
	index  uint64
}

// fsm is the state machine of one raft instance. raft calls it from one
// goroutine; mu is for those who look on.
type fsm struct {
	at      atomic.Uint64 // index of the last command applied, once it shows in the view
	mu      sync.Mutex
	state   *record.State
	onState func(*record.State, string) // after a change; "" names every resource
	alone   func(*record.State)         // set only while recovering: changes what is snapshot
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any {
	c, err := record.DecodeCommand(l.Data)
	if err != nil {
		// The same bytes fail alike on every voter: an answer, not a crash.
		return applied{record.Answer{Refused: record.RefusedInvalid, Detail: err.Error()}, l.Index}
	}
	f.mu.Lock()
	a := f.state.Apply(c)
	f.mu.Unlock()
	if f.onState != nil {
		f.onState(f.state, c.Resource)
	}
	f.at.Store(l.Index)
	return applied{a, l.Index}
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state.Clone()
	if f.alone != nil {
		f.alone(s)
	}
	b, err := s.Encode()
	if err != nil {
		return nil, err
	}
	return frozen(b), nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close() //nolint:errcheck // it was read to its end
	b, err := io.ReadAll(io.LimitReader(r, record.MaxStateBytes+1))
	if err != nil {
		return fmt.Errorf("read ledger snapshot: %w", err)
	}
	s, err := record.DecodeState(b)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.state = s
	f.mu.Unlock()
	if f.onState != nil {
		f.onState(s, "")
	}
	return nil
}

// frozen is an encoded state on its way to disk.
type frozen []byte

// Persist implements raft.FSMSnapshot.
func (b frozen) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(b); err != nil {
		_ = sink.Cancel() // the write's error is the one to report
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (frozen) Release() {}

// view is what the node shows of the ledger: it never goes back within an
// incarnation, even while a restarted raft replays its log.
type view struct {
	mu          sync.Mutex
	records     map[string]Record
	marks       map[string]string
	forced      []record.Forced
	fences      []record.Fence
	incarnation uint64
	lineage     []record.Founder
}

func newView(id identity) *view {
	v := &view{}
	v.reset(id)
	return v
}

func (v *view) reset(id identity) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.records, v.marks, v.forced, v.fences = map[string]Record{}, nil, nil, nil
	v.incarnation, v.lineage = id.Incarnation, id.Lineage
}

func (v *view) get(resource string) (Record, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r, ok := v.records[resource]
	return r.Clone(), ok
}

func (v *view) all() map[string]Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.records)
}

func (v *view) marked(subject string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.marks[subject]
	return ok
}

func (v *view) inc() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.incarnation
}

// take adopts what changed of s and returns the records that did.
// tell is called for each, in order with every other change, under v.mu.
func (v *view) take(s *record.State, resource string, tell func(string, Record)) map[string]Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	changed := map[string]Record{}
	newer := s.Incarnation > v.incarnation
	adopt := func(name string, r Record) {
		have := v.records[name]
		if r.Equal(have) || (!newer && r.Token < have.Token) {
			return
		}
		v.records[name] = r.Clone()
		changed[name] = r.Clone()
		tell(name, r)
	}
	if resource == "" {
		for name, r := range s.Records {
			adopt(name, r)
		}
	} else if r, ok := s.Records[resource]; ok {
		adopt(resource, r)
	}
	v.marks = maps.Clone(s.Marks)
	v.forced = append([]record.Forced(nil), s.ForcedLog...)
	v.fences = append([]record.Fence(nil), s.Fences...)
	if newer {
		v.incarnation = s.Incarnation
		v.lineage = append([]record.Founder(nil), s.Lineage...)
	}
	return changed
}

// learn adopts a record the leader has answered with, which is committed, before
// it is applied here: who changed it reads what it wrote.
// An answer of a group that this node has left since is not: tokens of two ledgers are
// not compared.
func (l *Ledger) learn(g *group, resource string, r Record, incarnation uint64) {
	if r.Token == 0 {
		return
	}
	v := l.view
	v.mu.Lock()
	newer := incarnation == v.incarnation && r.Token > v.records[resource].Token && l.group() == g
	if newer {
		v.records[resource] = r.Clone()
		l.tellRecord(resource, r)
	}
	v.mu.Unlock()
	if newer {
		l.hands.revoke(resource, r)
		l.kick()
	}
}

// tellAll tells what is known once the voter has caught up.
func (l *Ledger) tellAll() {
	l.view.mu.Lock()
	defer l.view.mu.Unlock()
	for name, r := range l.view.records {
		l.tellRecord(name, r)
	}
}

// onState is called by raft's goroutine after every change of the state.
func (l *Ledger) onState(s *record.State, resource string) {
	changed := l.view.take(s, resource, l.tellRecord)
	for name, r := range changed {
		l.hands.revoke(name, r)
	}
	l.kick()
}

// tellRecord queues a record for every callback. It calls none, so it may be
// called with view.mu held, which keeps the order.
//
// Before the voter has caught up nothing is told but that the ledger was
// discarded: replayed history is not the present, and who takes it for that
// may send a resync the wrong way.
func (l *Ledger) tellRecord(name string, r Record) {
	if r.Token != 0 && !l.voter.caughtUp() {
		return
	}
	l.cbMu.Lock()
	fns := l.onRecord
	l.cbMu.Unlock()
	for _, fn := range fns {
		l.records.post("", func() { fn(name, r.Clone()) })
	}
}
