package ledger

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"hapair/failover/ledger/record"
)

func FuzzMessages(f *testing.F) {
	for _, m := range []any{
		hello{Magic: helloMagic, Version: 1, Node: "a", Incarnation: 2, Lineage: []record.Founder{{Incarnation: 1}, {Incarnation: 2, Node: "a"}}},
		hello{Magic: helloMagic, Version: 1, Node: "a", Machine: "20000101T000000Z-ABCD", Claims: true, Seats: map[string]seat{"b": {Machine: "x", Turn: 2, Former: []string{"y"}, Free: true}, "c": {Turn: 1, Open: true}}},
		hello{Magic: helloMagic, Version: 1, Node: "w", Incarnation: 1, Lineage: []record.Founder{{Incarnation: 1}}, Voters: []string{"a", "b"}, Learners: []string{"w"}, Forked: true, Joining: true},
		call{Kind: callArrange, Data: []byte("w")},
		callReply{Status: statusOK, Arranged: &arranged{Witness: "w", Blank: true, Fresh: true, Why: "w is not reached"}},
		leaseAsk{Session: "s", Incarnation: 1, Items: []leaseItem{{Resource: "r", Tenure: 2, Seq: 3, Duration: 5}}},
		leaseReply{Results: []leaseResult{{Refused: "x"}}},
		call{Kind: callApply, Data: []byte("{}")},
		callReply{Status: statusOK, Answer: record.Answer{Record: Record{Token: 1}}},
	} {
		var b bytes.Buffer
		if err := writeMessage(&b, m); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(hello), new(leaseAsk), new(leaseReply), new(call), new(callReply)} {
			err := readMessage(bytes.NewReader(b), v)
			if err != nil && !errors.Is(err, ErrWire) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("untyped: %v", err)
			}
			if r, ok := v.(*callReply); ok && err == nil && r.Arranged != nil {
				r.Arranged.check() //nolint:errcheck // it must not panic
			}
			if h, ok := v.(*hello); ok && err == nil && h.check() == nil {
				judge(*h, hello{Incarnation: 1})
			}
		}
	})
}

// What a node tells of itself is bounded, each part of it.
func TestGreetingIsBounded(t *testing.T) {
	long := strings.Repeat("x", record.MaxName+1)
	for what, change := range map[string]func(*hello){
		"a voter's name":     func(h *hello) { h.Voters = []string{"a", long} },
		"a learner's name":   func(h *hello) { h.Learners = []string{long} },
		"a learner no name":  func(h *hello) { h.Learners = []string{""} },
		"voters":             func(h *hello) { h.Voters = slices.Repeat([]string{"a"}, maxMembers+1) },
		"members":            func(h *hello) { h.Learners = slices.Repeat([]string{"a"}, maxMembers+1) },
		"a machine":          func(h *hello) { h.Machine = strings.Repeat("x", maxMachine+1) },
		"the machine's seat": func(h *hello) { h.Seats = map[string]seat{"a": {Machine: strings.Repeat("x", maxMachine+1)}} },
	} {
		h := hello{Magic: helloMagic, Version: helloVersion, Node: "a", Voters: []string{"a", "b"}, Learners: []string{"w"}}
		if err := h.check(); err != nil {
			t.Fatal(err)
		}
		if change(&h); !errors.Is(h.check(), ErrWire) {
			t.Errorf("%s: %v", what, h.check())
		}
	}
	for _, a := range []arranged{{Witness: long}, {Why: strings.Repeat("x", maxWhy+1)}} {
		if !errors.Is(a.check(), ErrWire) {
			t.Errorf("%.40v", a)
		}
	}
}

func TestJudge(t *testing.T) {
	first := record.Founder{Incarnation: 1}
	by := func(inc uint64, n string) record.Founder { return record.Founder{Incarnation: inc, Node: n} }
	one := hello{Node: "a", Incarnation: 1, Lineage: []record.Founder{first}, Voters: []string{"a", "b"}, LastIndex: 9}
	two := func(n string) hello {
		return hello{Node: n, Incarnation: 2, Lineage: []record.Founder{first, by(2, n)}, Voters: []string{n}, LastIndex: 9}
	}
	left := one
	left.Node, left.Voters, left.LastIndex = "b", []string{"b"}, 10
	joining := hello{Node: "a", Incarnation: 2, Lineage: two("b").Lineage, Joining: true}
	three := hello{Node: "b", Incarnation: 3, Lineage: []record.Founder{first, by(2, "b"), by(3, "b")}, Voters: []string{"b"}}
	forced := record.NewState(2, two("b").Lineage)
	forced.GoAlone("a", "the other box burns", true)
	apart := hello{Node: "a", Incarnation: forced.Incarnation, Lineage: forced.Lineage, Voters: []string{"a"}}
	if before(apart, two("b")) {
		t.Error("a voter of release 0 takes one that was forced before it had rejoined for its heir, and discards its ledger")
	}
	member := hello{Node: "a", Incarnation: 2, Lineage: two("b").Lineage, Voters: []string{"a", "b"}}
	lone := left // b had left a's group in order, was started cut off, and forced
	lone.Node, lone.Voters = "a", []string{"a"}
	ahead1 := one
	ahead1.LastIndex = 11
	for _, c := range []struct {
		name    string
		me, you hello
		want    verdict
	}{
		{"one history", one, one, same},
		{"the peer went alone", one, two("b"), behind},
		{"I went alone", two("b"), one, ahead},
		{"both went alone", two("a"), two("b"), split},
		{"both went alone, one twice", two("a"), three, split},
		{"the peer went alone after I had rejoined", member, three, behind},
		{"the peer was forced after it had left", lone, two("b"), split},
		{"I was forced after I had left", two("b"), lone, split},
		{"removed while away", one, left, behind},
		{"the other was removed", left, one, ahead},
		{"removed, but I know more", ahead1, left, same},
		{"the peer was forced before it had rejoined", two("b"), apart, split},
		{"I was forced before I had rejoined", apart, two("b"), split},
		{"rejoining one that was forced", joining, apart, behind},
		{"rejoining", joining, two("b"), same},
		{"rejoining, and the peer went on", joining, three, behind},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := judge(c.me, c.you); got != c.want {
				t.Fatalf("%d, wanted %d", got, c.want)
			}
		})
	}
}

// before is how voters of release 0, which know nothing of Apart, find that high's
// history contains the incarnation low is in.
func before(high, low hello) bool {
	was, known := record.FounderOf(high.Lineage, low.Incarnation)
	mine, _ := record.FounderOf(low.Lineage, low.Incarnation)
	return known && was == mine
}

type nopStreams struct{}

func (nopStreams) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("no network")
}
func (nopStreams) Handle(string, func(string, net.Conn)) {}
