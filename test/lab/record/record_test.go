package record

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server on an address until the returned function is called.
func serve(t *testing.T, file, address string) (string, func()) {
	t.Helper()
	s, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	return l.Addr().String(), func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The writer survives the loss of the service, and what was answered is there.
func TestWriterOverRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "records")
	address, stop := serve(t, file, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	acks := make(chan Ack, 10000)
	w := &Writer{Address: address, OnAck: func(a Ack) { acks <- a }}
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	for a := range acks {
		if a.N == 20 {
			break
		}
	}
	stop()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("12345"); err != nil { // torn
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	_, stop = serve(t, file, address)
	defer stop()
	for a := range acks {
		if a.At.After(back) && a.N > 40 {
			break
		}
	}
	cancel()
	<-done
	present, err := List(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	if missing := Missing(w.Acks, present); len(missing) > 0 {
		t.Errorf("missing: %v", missing)
	}
	if slices.Contains(present, 12345) {
		t.Error("a torn record was taken for a whole one")
	}
	if gap, from := w.Gap(); gap == 0 || from.IsZero() || w.Retries == 0 {
		t.Errorf("gap %s from %s, %d retries", gap, from, w.Retries)
	}
}

// What is said of answers is understood, and nothing else is taken for one.
func TestFollow(t *testing.T) {
	want := []Ack{{N: 1, At: time.Unix(0, 1795758955366789012)}, {N: 2, At: time.Unix(1795758956, 0)}}
	text := want[0].String() + "\nanswered 2, missing 0\n" + want[1].String() + "\n"
	var got []Ack
	var others []string
	Follow(strings.NewReader(text), func(a Ack) { got = append(got, a) }, func(line string) { others = append(others, line) })
	if !slices.Equal(got, want) || !slices.Equal(others, []string{"answered 2, missing 0"}) {
		t.Errorf("%v, and %q", got, others)
	}
}

func TestMissing(t *testing.T) {
	acks := []Ack{{N: 1}, {N: 2}, {N: 3}, {N: 4}}
	if got := Missing(acks, []uint64{4, 1, 1, 9}); !slices.Equal(got, []uint64{2, 3}) {
		t.Errorf("missing %v", got)
	}
}

// A damaged file is refused, never repaired in silence.
func TestDamaged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "records")
	if err := os.WriteFile(file, []byte("1\nx\n2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(file); err == nil {
		t.Error(s.Close(), "accepted")
	}
}

func TestNonsense(t *testing.T) {
	address, stop := serve(t, filepath.Join(t.TempDir(), "records"), "127.0.0.1:0")
	defer stop()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("get 1\n")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes of an answer to nonsense", n)
	}
}
