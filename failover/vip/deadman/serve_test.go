package deadman

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// A helper that cannot take an address away tries again, and does not end
// before it has.
func TestServerInsists(t *testing.T) {
	ours, theirs := net.Pipe()
	var now, end, tries atomic.Int64
	end.Store(int64(time.Hour))
	removed := make(chan Held, 1)
	var log bytes.Buffer
	s := server{clock: func() time.Duration { return time.Duration(now.Load()) }, until: func(int) time.Duration { return time.Duration(end.Load()) }, log: &log,
		silence: func(Held) {},
		there:   func(Held) bool { return false },
		remove: func(h Held) error {
			if tries.Add(1) < 3 {
				return errors.New("busy")
			}
			removed <- h
			return nil
		}}
	ended := make(chan error, 1)
	go func() { ended <- s.run(theirs) }()
	x := at(7, "10.0.0.1/24")
	b, err := json.Marshal(order{Hold: &x})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Write(append(b, '\n')); err != nil {
		t.Fatal(err)
	}
	if answer, err := bufio.NewReader(ours).ReadBytes('\n'); err != nil || !bytes.Equal(bytes.TrimSpace(answer), b) {
		t.Fatalf("answer %q, %v", answer, err)
	}
	now.Store(int64(2 * time.Hour))
	if err := ours.Close(); err != nil { // the agent is gone; that wakes it
		t.Fatal(err)
	}
	if err := <-ended; err != nil || <-removed != x.Held || tries.Load() != 3 {
		t.Errorf("ended with %v after %d tries: %s", err, tries.Load(), log.Bytes())
	}
}

// All addresses go before the first device: the kernel is in no hurry with those.
func TestServerSilencesFirst(t *testing.T) {
	var did []string
	s := server{clock: func() time.Duration { return time.Hour }, until: func(int) time.Duration { return time.Minute }, log: io.Discard,
		silence: func(h Held) { did = append(did, "silence "+h.Prefix.String()) },
		remove:  func(h Held) error { did = append(did, "remove "+h.Prefix.String()); return nil }}
	s.watch.hold(at(0, "10.0.0.1/24"))
	s.watch.hold(at(1, "10.0.0.2/24"))
	s.turn()
	if want := []string{"silence 10.0.0.1/24", "silence 10.0.0.2/24", "remove 10.0.0.1/24", "remove 10.0.0.2/24"}; !slices.Equal(did, want) {
		t.Errorf("%q", did)
	}
}

func TestServerRefuses(t *testing.T) {
	for _, line := range []string{"nonsense\n", `{"hold":{"slot":-1,"prefix":"10.0.0.1/24"}}` + "\n", `{"release":{"slot":512,"prefix":"10.0.0.1/24"}}` + "\n"} {
		ours, theirs := net.Pipe()
		s := server{clock: func() time.Duration { return 0 }, log: io.Discard}
		ended := make(chan error, 1)
		go func() { ended <- s.run(theirs) }()
		if _, err := ours.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil {
			t.Errorf("%q is accepted", line)
		}
		_, _ = ours.Close(), theirs.Close() // pipes in memory
	}
}

func FuzzOrder(f *testing.F) {
	f.Add([]byte(`{"hold":{"resource":"pg","prefix":"10.0.0.1/24","dev":"eth0","slot":1}}`))
	f.Add([]byte(`{"hold":{"resource":"pg","prefix":"10.0.0.1/24","dev":"eth0","mac":"02:48:41:00:00:01","slot":1}}`))
	f.Add([]byte(`{"release":{"slot":4}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var s server
		if s.obey(line) != nil && len(s.watch.held) > 0 {
			t.Error("an order that is refused leaves something behind")
		}
		for _, h := range s.watch.held {
			if h.Slot < 0 || h.Slot >= slots {
				t.Errorf("slot %d", h.Slot)
			}
		}
	})
}
