package record

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"hapair/test/release"
)

// commandsOf0 is a command of each kind that release 0 had.
var commandsOf0 = []Command{
	{ID: "a-1-1", Kind: Declare, Resource: "pg", Nodes: []string{"alpha", "beta"}, At: 1700000000000000001},
	{ID: "a-1-2", Kind: Promote, Resource: "pg", Node: "alpha", Expect: 1, At: 2},
	{ID: "a-1-3", Kind: Exclude, Resource: "pg", Node: "beta", Expect: 2},
	{ID: "a-1-4", Kind: Include, Resource: "pg", Node: "beta", Expect: 3},
	{ID: "a-1-5", Kind: GiveUp, Resource: "pg", Node: "alpha", Expect: 4},
	{ID: "a-1-6", Kind: Demote, Resource: "pg", Node: "alpha", Expect: 5},
	{ID: "a-1-7", Kind: Force, Resource: "pg", Node: "beta", Expect: 6, Reason: "the other box burns", At: 3},
	{ID: "a-1-8", Kind: Mark, Resource: "pg", Reason: "new disks"},
	{ID: "a-1-9", Kind: Mark, Resource: "standby/alpha", Reason: "kernel"},
	{ID: "a-1-10", Kind: Unmark, Resource: "pg"},
	{ID: "a-1-11", Kind: FenceLog, Node: "alpha", Outcome: "confirmed", Reason: "silent", At: 4},
	{ID: "a-1-12", Kind: Promote, Resource: "pg", Node: "alpha", Expect: 1},
}

// Every entry that release 0 left in the log is applied today as it was: the state
// after them has the same bytes. Voters of two releases in one group would else
// have different states.
func TestLogOfRelease0(t *testing.T) {
	frozen := release.Parse(t, release.Frozen(t, "0", "log.txt", func() []byte {
		var n release.Named
		for _, c := range commandsOf0 {
			b, err := c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			n.Add(string(c.Kind), b)
		}
		return n.Lines()
	}))
	s := NewState(3, []Founder{{Incarnation: 2}, {Incarnation: 3, Node: "beta", Reason: "alone"}})
	for i, f := range frozen {
		c, err := DecodeCommand(f.Bytes)
		if err != nil || !reflect.DeepEqual(c, commandsOf0[i]) {
			t.Fatalf("%s is read as %+v, %v", f.Bytes, c, err)
		}
		if b, err := c.Encode(); err != nil || !bytes.Equal(b, f.Bytes) {
			t.Errorf("written as %s, %v, was %s", b, err, f.Bytes)
		}
		if a := s.Apply(c); (a.Refused != "") != (i == len(frozen)-1) {
			t.Errorf("%s: %q", f.Bytes, a.Refused)
		}
	}
	now, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	was := release.Frozen(t, "0", "state.json", func() []byte { return now })
	if !bytes.Equal(now, was) {
		t.Errorf("the state after them is\n%s\nand was\n%s", now, was)
	}
	old, err := DecodeState(was)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(old, s) {
		t.Errorf("the state of release 0 is read as\n%+v\nand is\n%+v", old, s)
	}
}

// A command that release 0 does not know is refused by its voters. Who adds a kind
// here has to see to it that none is proposed before every voter's greeting has said
// that it knows it, or the states of two releases in one group part.
func TestNoCommandThatRelease0DoesNotKnow(t *testing.T) {
	known := map[Kind]bool{}
	for _, c := range commandsOf0 {
		known[c.Kind] = true
	}
	src, err := os.ReadFile("command.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := regexp.MustCompile(`(?m)^\s+\w+ +Kind = "([a-z-]+)"`).FindAllStringSubmatch(string(src), -1)
	if len(kinds) != len(known) {
		t.Errorf("%d kinds are declared, release 0 knew %d", len(kinds), len(known))
	}
	for _, k := range kinds {
		if !known[Kind(k[1])] {
			t.Errorf("a voter of release 0 refuses %q, and one of this release applies it", k[1])
		}
	}
}

// What is of a later format says so, with both numbers.
func TestLaterFormatsAreRefused(t *testing.T) {
	_, err := DecodeCommand([]byte(`{"v":2,"id":"x","kind":"promote","resource":"pg","node":"alpha"}`))
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "command format 2, this version knows 1") {
		t.Error(err)
	}
	_, err = DecodeState([]byte(`{"version":2,"incarnation":1}`))
	if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "format 2, this version knows 1") {
		t.Error(err)
	}
}
