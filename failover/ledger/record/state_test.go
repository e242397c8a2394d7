package record

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hapair/failover/lease"
)

func with(r Record) *State {
	s := NewState(1, []Founder{{Incarnation: 1}})
	s.Records["r"] = r
	return s
}

func TestCommands(t *testing.T) {
	ab := []string{"a", "b"}
	plain := Record{Token: 5, Tenure: 2, Primary: "a", InSync: ab}
	for _, c := range []struct {
		name   string
		before Record
		cmd    Command
		after  Record
		err    error
	}{
		{"declare", Record{}, Command{Kind: Declare, Nodes: []string{"b", "a", "b"}}, Record{Token: 1, InSync: ab}, nil},
		{"declare again", plain, Command{Kind: Declare, Nodes: ab, Expect: 5}, plain, ErrDeclared},
		{"promote", Record{Token: 1, InSync: ab}, Command{Kind: Promote, Node: "b", Expect: 1}, Record{2, 2, "b", ab}, nil},
		{"promote over another", plain, Command{Kind: Promote, Node: "b", Expect: 5}, Record{6, 6, "b", ab}, nil},
		{"promote the same again", plain, Command{Kind: Promote, Node: "a", Expect: 5}, Record{6, 6, "a", ab}, nil},
		{"promote a copy not in sync", Record{5, 2, "a", []string{"a"}}, Command{Kind: Promote, Node: "b", Expect: 5}, Record{5, 2, "a", []string{"a"}}, ErrNotInSync},
		{"promote with an old token", plain, Command{Kind: Promote, Node: "b", Expect: 4}, plain, ErrStale},
		{"promote the undeclared", Record{}, Command{Kind: Promote, Node: "a"}, Record{}, ErrNotInSync},
		{"demote keeps the tenure", plain, Command{Kind: Demote, Node: "a", Expect: 5}, Record{6, 2, "", ab}, nil},
		{"demote the secondary", plain, Command{Kind: Demote, Node: "b", Expect: 5}, plain, ErrNotPrimary},
		{"exclude keeps the tenure", plain, Command{Kind: Exclude, Node: "b", Expect: 5}, Record{6, 2, "a", []string{"a"}}, nil},
		{"exclude the last", Record{5, 2, "a", []string{"a"}}, Command{Kind: Exclude, Node: "a", Expect: 5}, Record{5, 2, "a", []string{"a"}}, ErrLastCopy},
		{"exclude the primary", plain, Command{Kind: Exclude, Node: "a", Expect: 5}, plain, ErrLastCopy},
		{"give up as the primary", plain, Command{Kind: GiveUp, Node: "a", Expect: 5}, Record{6, 2, "a", []string{"b"}}, nil},
		{"give up with the last copy", Record{5, 2, "a", []string{"a"}}, Command{Kind: GiveUp, Node: "a", Expect: 5}, Record{5, 2, "a", []string{"a"}}, ErrLastCopy},
		{"give up as the secondary", plain, Command{Kind: GiveUp, Node: "b", Expect: 5}, plain, ErrNotPrimary},
		{"give up twice changes nothing", Record{5, 2, "a", []string{"b"}}, Command{Kind: GiveUp, Node: "a", Expect: 5}, Record{5, 2, "a", []string{"b"}}, nil},
		{"exclude the absent changes nothing", Record{5, 2, "a", []string{"a"}}, Command{Kind: Exclude, Node: "b", Expect: 5}, Record{5, 2, "a", []string{"a"}}, nil},
		{"include", Record{5, 2, "b", []string{"b"}}, Command{Kind: Include, Node: "a", Expect: 5}, Record{6, 2, "b", ab}, nil},
		{"include the present changes nothing", plain, Command{Kind: Include, Node: "a", Expect: 5}, plain, nil},
		{"include before declare", Record{}, Command{Kind: Include, Node: "a"}, Record{}, ErrNotInSync},
		{"force", plain, Command{Kind: Force, Node: "b", Expect: 5, Reason: "a burnt"}, Record{6, 2, "", []string{"b"}}, nil},
		{"no node", plain, Command{Kind: Promote, Expect: 5}, plain, ErrInvalid},
		{"unknown command", plain, Command{Kind: "x", Expect: 5}, plain, ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := with(c.before)
			c.cmd.ID, c.cmd.Resource = "1", "r"
			a := s.Apply(c.cmd)
			if err := a.Err(c.cmd); !errors.Is(err, c.err) {
				t.Fatalf("error %v, wanted %v", err, c.err)
			}
			if got := s.Records["r"]; !got.Equal(c.after) {
				t.Fatalf("record %+v, wanted %+v", got, c.after)
			}
			if a.Refused != RefusedInvalid && !a.Record.Equal(c.after) {
				t.Fatalf("answered %+v, wanted %+v", a.Record, c.after)
			}
			if len(s.ForcedLog) > 0 != (c.cmd.Kind == Force) {
				t.Fatalf("forced log %+v", s.ForcedLog)
			}
		})
	}
}

func TestClusterWide(t *testing.T) {
	s := NewState(1, nil)
	s.Apply(Command{ID: "1", Kind: Mark, Resource: "n1", Reason: "new fan"})
	s.Apply(Command{ID: "2", Kind: FenceLog, Node: "n2", Outcome: "confirmed"})
	if s.Marks["n1"] != "new fan" || len(s.Fences) != 1 || len(s.Records) != 0 {
		t.Fatalf("%+v", s)
	}
	s.Apply(Command{ID: "3", Kind: Unmark, Resource: "n1"})
	if len(s.Marks) != 0 {
		t.Fatalf("marks %v", s.Marks)
	}
	s.Records["of n1"], s.Records["of n2"] = Record{5, 2, "n1", []string{"n1"}}, Record{7, 3, "n2", []string{"n1", "n2"}}
	s.Fenced(Fence{Node: "n2", Outcome: "confirmed", Reason: "cable"})
	if got := s.Records["of n2"]; len(s.Fences) != 2 || s.Records["of n1"].Primary != "n1" || !got.Equal(Record{8, 3, "", []string{"n1", "n2"}}) {
		t.Fatalf("%+v", s)
	}
	s.GoAlone("n1", "cable", false)
	if n, ok := s.Founder(2); s.Incarnation != 2 || !ok || n != "n1" {
		t.Fatalf("%+v", s)
	}
}

var nodes = []string{"a", "b", "c"}

func drawCommand(t *rapid.T, s *State, id string) Command {
	kinds := []Kind{Promote, Demote, Exclude, GiveUp, Include, Declare, Force, Mark, Unmark, FenceLog}
	c := Command{
		ID: id, Kind: rapid.SampledFrom(kinds).Draw(t, "kind"),
		Resource: rapid.SampledFrom([]string{"r", "s"}).Draw(t, "resource"),
		Node:     rapid.SampledFrom(nodes).Draw(t, "node"),
		Nodes:    rapid.SliceOfN(rapid.SampledFrom(nodes), 1, 3).Draw(t, "nodes"),
	}
	c.Expect = s.Records[c.Resource].Token
	if rapid.IntRange(0, 4).Draw(t, "late") == 0 {
		c.Expect = lease.Token(rapid.Uint64Range(0, uint64(c.Expect)+1).Draw(t, "expect"))
	}
	return c
}

// What must hold of any run of commands: tokens grow by one and only on change,
// tenures never fall and mark promotions, the in-sync set once declared is never
// empty, a promoted copy was in it, a command repeated changes nothing and is
// answered as before, and two voters given the same commands agree.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, twin := NewState(1, nil), NewState(1, nil)
		var past []Command
		answers := map[string]Answer{}
		for i := range rapid.IntRange(1, 60).Draw(t, "n") {
			c := drawCommand(t, s, fmt.Sprint(i))
			if len(past) > 0 && rapid.IntRange(0, 5).Draw(t, "again") == 0 {
				c = rapid.SampledFrom(past).Draw(t, "which")
			}
			before := s.Clone()
			a := s.Apply(c)
			twin.Apply(c)
			if was, again := answers[c.ID]; again {
				if a.Refused != was.Refused || !a.Record.Equal(was.Record) {
					t.Fatalf("repeated %+v: answered %+v, before %+v", c, a, was)
				}
				if x, y := encode(t, before), encode(t, s); !bytes.Equal(x, y) {
					t.Fatalf("repeated %+v changed the state", c)
				}
			}
			answers[c.ID] = a
			past = append(past, c)
			for name, r := range s.Records {
				checkStep(t, before.Records[name], r, c)
			}
		}
		x := encode(t, s)
		if !bytes.Equal(x, encode(t, twin)) {
			t.Fatal("two voters disagree")
		}
		back, err := DecodeState(x)
		if err != nil || !bytes.Equal(x, encode(t, back)) {
			t.Fatalf("round trip: %v", err)
		}
	})
}

func encode(t *rapid.T, s *State) []byte {
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checkStep(t *rapid.T, was, now Record, c Command) {
	if was.Equal(now) {
		return
	}
	switch {
	case now.Token != was.Token+1 || c.Expect != was.Token:
		t.Fatalf("%+v: token %d after %d", c, now.Token, was.Token)
	case now.Tenure < was.Tenure || (now.Tenure != was.Tenure) != (c.Kind == Promote):
		t.Fatalf("%+v: tenure %d after %d", c, now.Tenure, was.Tenure)
	case len(now.InSync) == 0 || !slices.IsSorted(now.InSync):
		t.Fatalf("%+v: in-sync set %v", c, now.InSync)
	case now.Primary != was.Primary && now.Primary != "" && !was.Has(now.Primary):
		t.Fatalf("%+v: promoted %s, in sync were %v", c, now.Primary, was.InSync)
	case now.Primary != was.Primary && now.Primary != "" && now.Tenure != now.Token:
		t.Fatalf("%+v: promoted without a new tenure", c)
	}
}

func TestAnswersAreForgottenInOrder(t *testing.T) {
	s := NewState(1, nil)
	for i := range rememberAnswers + 10 {
		s.Apply(Command{ID: fmt.Sprint(i), Kind: Mark, Resource: "x", Reason: fmt.Sprint(i)})
	}
	if len(s.Answers) != rememberAnswers || s.Answers[0].ID != "10" {
		t.Fatalf("%d answers, oldest %s", len(s.Answers), s.Answers[0].ID)
	}
}

func FuzzDecodeCommand(f *testing.F) {
	b, err := Command{ID: "1", Kind: Promote, Resource: "r", Node: "a", Expect: 3}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{"v":1,"id":"1","kind":"declare","resource":"r","nodes":[""]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		s := NewState(1, nil)
		first := s.Apply(c)
		if again := s.Apply(c); again.Refused != first.Refused || !again.Record.Equal(first.Record) {
			t.Fatalf("%+v: %+v then %+v", c, first, again)
		}
		if _, err := c.Encode(); err != nil {
			t.Fatalf("decoded but does not encode: %v", err)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	s := with(Record{Token: 5, Tenure: 2, Primary: "a", InSync: []string{"a", "b"}})
	b, err := s.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"records":null,"marks":null}`))
	f.Add([]byte(`{"version":1,"records":{"r":{"token":0}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeState(b)
		if err != nil {
			if !errors.Is(err, ErrState) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		s.Apply(Command{ID: "1", Kind: Declare, Resource: "new", Nodes: []string{"a"}})
		if _, err := s.Encode(); err != nil {
			t.Fatal(err)
		}
	})
}
