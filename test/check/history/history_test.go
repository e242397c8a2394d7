package history

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const within = 10 * time.Second

// ops of the stories below: times are in the order things happen.
func write(block, blocks int, v Value, call, ret time.Duration) Op {
	return Op{Who: "alpha/1", Kind: Write, Block: block, Blocks: blocks, Value: v, Call: call, Return: ret, Answered: ret != 0}
}

func read(block int, call, ret time.Duration, found ...Value) Op {
	o := Op{Who: "beta/1", Kind: Read, Block: block, Blocks: len(found), Call: call, Return: ret, Answered: true}
	for _, v := range found {
		o.Found = append(o.Found, uniform(v))
	}
	return o
}

func flush(call, ret time.Duration) Op {
	return Op{Who: "alpha/2", Kind: Flush, Call: call, Return: ret, Answered: ret != 0}
}

func loss(at time.Duration) Op { return Op{Kind: Loss, Call: at, Return: at + 1, Answered: true} }

// Each story is right or wrong, and a wrong one is found.
func TestStories(t *testing.T) {
	for _, s := range []struct {
		name  string
		ops   []Op
		wrong string // a part of the explanation; "" when all is right
	}{
		{"what was written is read", []Op{write(0, 1, 7, 1, 2), read(0, 3, 4, 7)}, ""},
		{"an answered write is lost", []Op{write(0, 1, 7, 1, 2), read(0, 3, 4, 0)}, "found 0"},
		{"an answered write of several blocks is lost in one", []Op{write(0, 3, 7, 1, 2), read(0, 3, 4, 7, 0, 7)}, "block 1"},
		{"a stale read after a failover", []Op{write(0, 1, 7, 1, 2), write(0, 1, 8, 3, 4), read(0, 5, 6, 8), read(0, 7, 8, 7)}, "found 7"},
		{"a stale read beside the new Primary's write", []Op{write(0, 1, 7, 1, 2), write(0, 1, 8, 3, 4), read(0, 3, 4, 7)}, ""},
		{"an unanswered write is found", []Op{write(0, 1, 7, 1, 0), read(0, 3, 4, 7), read(0, 5, 6, 7)}, ""},
		{"an unanswered write is found late", []Op{write(0, 1, 7, 1, 0), read(0, 3, 4, 0), read(0, 5, 6, 7)}, ""},
		{"an unanswered write is not found", []Op{write(0, 1, 7, 1, 0), read(0, 3, 4, 0)}, ""},
		{"a read shows a write that vanishes", []Op{write(0, 1, 7, 1, 0), read(0, 3, 4, 7), read(0, 5, 6, 0)}, "found 0"},
		{"a read beside a write shows it, and it vanishes", []Op{read(0, 1, 4, 7), write(0, 1, 7, 2, 0), read(0, 5, 6, 0)}, "found 0"},
		{"two reads of unanswered writes, either order", []Op{write(0, 1, 7, 1, 0), write(0, 1, 8, 1, 0), read(0, 3, 4, 8), read(0, 5, 6, 7)}, ""},
		{"two reads see two writes in two orders", []Op{write(0, 1, 7, 1, 9), write(0, 1, 8, 1, 9), read(0, 2, 3, 7), read(0, 4, 5, 8), read(0, 6, 7, 7)}, "found 7"},
		{"a value that nobody wrote", []Op{read(0, 1, 2, 9)}, "found 9"},
		{"a value before it was written", []Op{read(0, 1, 2, 9), write(0, 1, 9, 3, 4)}, "found 9"},
		{"an unflushed write is lost without a loss of power", []Op{flush(1, 2), write(0, 1, 7, 3, 4), read(0, 9, 10, 0)}, "found 0"},
		{"an unflushed write is lost with the power of both", []Op{write(0, 1, 7, 3, 4), loss(6), read(0, 9, 10, 0)}, ""},
		{"a flushed write is lost with the power of both", []Op{write(0, 1, 7, 1, 2), flush(3, 4), loss(6), read(0, 9, 10, 0)}, "found 0"},
		{"a flush that was not answered promises nothing", []Op{write(0, 1, 7, 1, 2), flush(3, 0), loss(6), read(0, 9, 10, 0)}, ""},
		{"a write beside a flush is not covered", []Op{write(0, 1, 7, 1, 4), flush(3, 5), loss(6), read(0, 9, 10, 0)}, ""},
		{"older than what was flushed", []Op{write(0, 1, 6, 1, 2), write(0, 1, 7, 3, 4), flush(5, 6), write(0, 1, 8, 7, 8), loss(9), read(0, 11, 12, 6)}, "found 6"},
		{"what was flushed, though a later write is lost", []Op{write(0, 1, 7, 3, 4), flush(5, 6), write(0, 1, 8, 7, 8), loss(9), read(0, 11, 12, 7)}, ""},
		{"what a loss took comes back", []Op{write(0, 1, 7, 1, 2), loss(3), read(0, 5, 6, 0), read(0, 7, 8, 7)}, "found 7"},
		{"flushed in between, lost at the second loss", []Op{write(0, 1, 7, 1, 2), loss(3), read(0, 5, 6, 7), flush(7, 8), loss(9), read(0, 11, 12, 0)}, "found 0"},
	} {
		t.Run(s.name, func(t *testing.T) {
			var h History
			for _, o := range s.ops {
				h.Add(o)
			}
			_, err := h.Judge(within)
			switch {
			case s.wrong == "" && err != nil:
				t.Errorf("found wrong: %v", err)
			case s.wrong != "" && (err == nil || !strings.Contains(err.Error(), s.wrong)):
				t.Errorf("want an error about %q, got %v", s.wrong, err)
			}
		})
	}
}

// The explanation ends with the first answer that nothing explains.
func TestExplanationIsShort(t *testing.T) {
	var h History
	at := time.Duration(0)
	for v := Value(1); v <= 500; v++ {
		h.Add(write(0, 1, v, at+1, at+2))
		found := v
		if v == 321 {
			found = v - 20
		}
		h.Add(read(0, at+3, at+4, found))
		at += 10
	}
	_, err := h.Judge(within)
	if err == nil {
		t.Fatal("a stale read among 500 was not found")
	}
	text := err.Error()
	for _, want := range []string{"up to 3.204µs", "write 301 ", "write 321 ", "found 301"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if lines := strings.Count(text, "\n"); lines > shown+2 {
		t.Errorf("%d lines:\n%s", lines, text)
	}
}

// A block of which a power cut left half is two registers, and each is judged.
func TestTornBlock(t *testing.T) {
	half := uniform(7)
	half[0] = 0
	for _, answered := range []bool{false, true} {
		var h History
		o := write(0, 1, 7, 1, 2)
		o.Answered = answered
		h.Add(o)
		h.Add(Op{Who: "beta/1", Kind: Read, Blocks: 1, Found: []Contents{half}, Call: 3, Return: 4, Answered: true})
		if _, err := h.Judge(within); (err != nil) != answered {
			t.Errorf("answered %t: %v", answered, err)
		}
	}
}

// pretend plays clients on a device that takes each request at an instant of
// its interval, and forgets the answers of some.
func pretend(seed uint64, requests int) *History {
	rng := rand.New(rand.NewPCG(seed, 1))
	h, now := &History{}, time.Duration(0)
	cells, clients := make([]Value, 3), make([]time.Duration, 4)
	for v := Value(1); v <= Value(requests); v++ {
		now += time.Duration(2 + rng.IntN(6)) // the instant of effect
		c := rng.IntN(len(clients))
		call := max(clients[c], now-time.Duration(rng.IntN(9)))
		ret := now + time.Duration(rng.IntN(9))
		clients[c] = ret + 1
		if call > now {
			continue // the client is still waiting
		}
		first := rng.IntN(len(cells))
		n := 1 + rng.IntN(len(cells)-first)
		lost := rng.IntN(20) == 0
		if rng.IntN(2) == 0 {
			h.Add(read(first, call, ret, cells[first:first+n]...))
			continue
		}
		o := write(first, n, v, call, ret)
		o.Answered = !lost
		h.Add(o)
		if lost && rng.IntN(2) == 0 {
			continue // and did not take effect
		}
		for i := first; i < first+n; i++ {
			cells[i] = v
		}
	}
	return h
}

// A device that does what it should is found right, and one read of it made
// wrong is found.
func TestPretended(t *testing.T) {
	for seed := range uint64(100) {
		h := pretend(seed, 400)
		if _, err := h.Judge(within); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		spoil(h)
		if _, err := h.Judge(within); err == nil {
			t.Fatalf("seed %d: the spoiled read was not found", seed)
		}
	}
}

// spoil makes the last long read show what its first block held at the very
// beginning, after something else was answered.
func spoil(h *History) {
	for _, o := range slices.Backward(h.ops) {
		if o.Kind == Read && o.Found[0][0] != 0 {
			o.Found[0] = Contents{}
			o.Call, o.Return = forever-2, forever-1
			return
		}
	}
}

// What a client tells line by line is the history it had.
func TestLines(t *testing.T) {
	torn := uniform(5)
	torn[3] = 0
	ops := []Op{write(1, 2, 5, 10, 20), write(2, 1, 6, 11, 0), {Who: "alpha/1", Kind: Read, Block: 1, Blocks: 2, Found: []Contents{torn, uniform(6)}, Call: 30, Return: 40, Answered: true}, flush(41, 42)}
	var h History
	for i := range ops {
		o, out := &ops[i], new(bytes.Buffer)
		if err := WriteCall(out, 1, uint64(i), o); err != nil {
			t.Fatal(err)
		}
		if o.Answered {
			if err := WriteReturn(out, 1, uint64(i), o); err != nil {
				t.Fatal(err)
			}
		}
		for line := range strings.Lines(out.String()) {
			if err := h.Line("alpha", strings.TrimSpace(line)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, o := range h.ops {
		ops[i].Who = "alpha/1"
		if o.String() != ops[i].String() || !slices.Equal(o.Found, ops[i].Found) {
			t.Errorf("%s came back as %s", &ops[i], o)
		}
	}
	if c := h.Counts(); c != (Counts{Reads: 1, Writes: 1, Flushes: 1, Open: 1}) {
		t.Errorf("counts %+v", c)
	}
}

// Lines that say nothing are errors, not histories.
func TestBadLines(t *testing.T) {
	for _, line := range []string{"", "call", "call 1 1 9 0 1 1 1", "call 1 1 2 0 1 0 1", "return 1 1 5", "call 1 1 1 0 1 0 x"} {
		if err := new(History).Line("alpha", line); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
	var h History
	if err := h.Line("alpha", "call 1 1 1 0 2 0 5"); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"call 1 1 1 0 2 0 5", "return 1 1 9 4", "return 1 1 9 4,5 3", "return 1 1 x 4 4"} {
		if err := h.Line("alpha", line); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}

// Sectors know their place.
func TestFill(t *testing.T) {
	data := make([]byte, 2*BlockBytes)
	Fill(data, 3, 17)
	if got, err := Decode(data, 3); err != nil || !slices.Equal(got, []Contents{uniform(17), uniform(17)}) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := Decode(data, 4); err == nil {
		t.Error("blocks at another place were taken")
	}
	data[700]++
	if _, err := Decode(data, 3); err == nil {
		t.Error("a sector torn inside was taken")
	}
	if got, err := Decode(make([]byte, BlockBytes), 9); err != nil || got[0] != (Contents{}) {
		t.Errorf("%v %v", got, err)
	}
}

// A search that takes too long is no verdict.
func TestUndecided(t *testing.T) {
	var h History
	for v := Value(1); v <= 40; v++ { // all at once, and read back in an order that hides which was last
		h.Add(write(0, 1, v, 1, 1000))
	}
	for i := range time.Duration(40) {
		h.Add(read(0, 2, 999, Value(40-i)))
	}
	h.Add(read(0, 1001, 1002, 41)) // which nobody wrote
	if _, err := h.Judge(time.Millisecond); !errors.Is(err, ErrUndecided) {
		t.Errorf("want ErrUndecided, got %v", err)
	}
}
