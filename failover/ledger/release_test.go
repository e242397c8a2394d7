package ledger

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"hapair/failover/ledger/record"
	kept "hapair/test/release"
)

// messagesOf0 is everything that release 0 said to another voter.
func messagesOf0() []any {
	rec := Record{Token: 7, Tenure: 5, Primary: "alpha", InSync: []string{"alpha", "beta"}}
	return []any{
		&hello{Magic: helloMagic, Version: 1, Node: "alpha", Incarnation: 2, Lineage: []record.Founder{{Incarnation: 1}, {Incarnation: 2, Node: "alpha", Reason: "alone"}},
			Voters: []string{"alpha", "beta"}, Joining: true, Left: true, LastTerm: 3, LastIndex: 99, Refused: "why"},
		&leaseAsk{Session: "s", Incarnation: 2, Items: []leaseItem{{Resource: "pg", Tenure: 5, Seq: 3, Duration: 500000000}, {Resource: "my", Tenure: 4, Seq: 4, Release: true}}},
		&leaseReply{Incarnation: 2, Refused: "another incarnation", Results: []leaseResult{{Refused: "promised", Wait: 17}, {}}},
		&call{Kind: callApply, Incarnation: 2, Data: []byte("{}"), Budget: 9},
		&call{Kind: callLapsed, Incarnation: 2, Resource: "pg", Minimum: 5, Budget: 9},
		&callReply{Status: statusOK, Answer: record.Answer{Record: rec, Refused: record.RefusedStale, Detail: "d"}, Index: 12, Ready: true, Lapsed: true, Known: true},
		&callReply{Status: statusNotLeader, Detail: "no leader"},
		&identity{Incarnation: 2, Lineage: []record.Founder{{Incarnation: 1}, {Incarnation: 2, Node: "alpha"}}, Joining: true, Wiping: true},
	}
}

// Every message of release 0 means the same today, and is sent as it was.
func TestMessagesOfRelease0(t *testing.T) {
	want := messagesOf0()
	was := kept.Parse(t, kept.Frozen(t, "0", "messages.txt", func() []byte {
		var n kept.Named
		for _, m := range want {
			var b bytes.Buffer
			if err := writeMessage(&b, m); err != nil {
				t.Fatal(err)
			}
			n.Add(strings.TrimPrefix(reflect.TypeOf(m).String(), "*ledger."), b.Bytes())
		}
		return n.Lines()
	}))
	for i, f := range was {
		got := reflect.New(reflect.TypeOf(want[i]).Elem()).Interface()
		if err := readMessage(bytes.NewReader(f.Bytes), got); err != nil || !reflect.DeepEqual(got, want[i]) {
			t.Errorf("%s: %v: %+v, was %+v", f.Name, err, got, want[i])
		}
		var b bytes.Buffer
		if err := writeMessage(&b, want[i]); err != nil || !bytes.Equal(b.Bytes(), f.Bytes) {
			t.Errorf("%s is sent as %q, %v, was %q", f.Name, b.Bytes(), err, f.Bytes)
		}
	}
}

// A voter of another protocol is refused with what both speak.
func TestVoterOfAnotherVersion(t *testing.T) {
	h := hello{Magic: helloMagic, Version: helloVersion + 1, Node: "alpha"}
	if err := h.check(); !errors.Is(err, ErrWire) || !strings.Contains(err.Error(), "protocol version 2, this node speaks 1") {
		t.Error(err)
	}
}
