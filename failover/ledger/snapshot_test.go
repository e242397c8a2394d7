package ledger

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// again is the snapshot that l's raft would send of what it has now.
func (c *cluster) again(l *Ledger) (*raft.InstallSnapshotRequest, []byte) {
	c.t.Helper()
	g := l.group()
	g.fsm.mu.Lock()
	state, err := g.fsm.state.Encode()
	g.fsm.mu.Unlock()
	servers, at, err2 := l.storedMembership()
	if err := errors.Join(err, err2); err != nil {
		c.t.Fatal(err)
	}
	index, term := l.lastLog()
	self := []byte(l.cfg.Self)
	return &raft.InstallSnapshotRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: self, Addr: self}, SnapshotVersion: raft.SnapshotVersionMax,
		Leader: self, LastLogIndex: index, LastLogTerm: term, Size: int64(len(state)),
		Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: servers}), ConfigurationIndex: at,
	}, state
}

// A snapshot that comes again, after entries of the configuration that follow it: raft
// would go on with the group that the snapshot names, and the witness, which votes,
// would call itself a newcomer.
func TestGroupBeyondASnapshotStaysInForce(t *testing.T) {
	for name, twice := range map[string]bool{"it has had the log": false, "it has had the snapshot": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) { beyondASnapshot(t, c, twice) })
		})
	}
}

func beyondASnapshot(t *testing.T, c *cluster, twice bool) {
	f := c.byFiles()
	c.open("a")
	c.open("b")
	lead := c.node(c.awaitLeader("a", "b"))
	time.Sleep(time.Second)
	req, state := c.again(lead)
	f["w"] = "w"
	w := c.open("w")
	send := func() {
		t.Helper()
		term, err := lead.store.GetUint64([]byte(keyTerm))
		if err != nil {
			t.Fatal(err)
		}
		req.Term = term
		trans := newTransport(lead, newStreamLayer(lead))
		defer trans.Close() //nolint:errcheck // only asked once
		var resp raft.InstallSnapshotResponse
		if err := trans.InstallSnapshot("w", "w", req, &resp, bytes.NewReader(state)); err != nil || !resp.Success {
			t.Fatal(resp, err)
		}
	}
	if twice {
		c.eventually(5*time.Second, "w joins", func() bool { return w.id().Joining && w.group() != nil })
		send()
	}
	c.wants(f, "w", "a", "b")
	c.arranged(3)
	had, _ := w.lastLog()
	send()
	if has, _ := w.lastLog(); has < had {
		t.Fatalf("what w acknowledged, up to %d, is up to %d", had, has)
	}
	votes := func() bool { return slices.Contains(w.greeting().Voters, "w") }
	c.eventually(time.Second, "w knows that it votes", votes)
	c.crash(lead.dataPeer())
	if err := lead.SetMaintenance(limit(5*time.Second), "r", "decided by two"); err != nil {
		t.Fatal(err)
	}
	c.eventually(time.Second, "w knows it", func() bool { return votes() && w.Marked("r") })
}

// What waits for a witness that has gone ends: it may come again as another peer.
func TestNothingWaitsForAWitnessThatHasGone(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.added(f)
		lead := c.node(c.awaitLeader("a", "b"))
		c.crash("w")
		c.eventually(2*time.Second, "w is lost", func() bool { return !lead.reaches("w") })
		trans := newTransport(lead, newStreamLayer(lead))
		defer trans.Close() //nolint:errcheck // never used
		ended := make(chan error, 1)
		go func() { ended <- trans.awaitPeer("w") }()
		time.Sleep(time.Second)
		select {
		case err := <-ended:
			t.Fatal(err)
		default:
		}
		c.wants(f, "", "a", "b")
		c.arranged(2)
		select {
		case err := <-ended:
			if !errors.Is(err, errNoPeer) {
				t.Error(err)
			}
		case <-time.After(time.Second):
			t.Error("it waits still")
		}
	})
}
