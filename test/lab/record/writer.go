package record

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of one attempt. They are short: an address that has moved is found
// again by asking again.
const (
	dialTimeout  = 50 * time.Millisecond
	ackTimeout   = 250 * time.Millisecond
	retryPause   = 2 * time.Millisecond
	listTimeout  = 10 * time.Second
	idleInterval = time.Millisecond // between two records
)

// Ack is one answered record and when the answer came.
type Ack struct {
	N  uint64
	At time.Time
}

// String is the answer as a line, see Follow.
func (a Ack) String() string { return fmt.Sprintf("%d %d", a.N, a.At.UnixNano()) }

// Follow reads lines to their end: those of answers go to ack, the others to other.
func Follow(r io.Reader, ack func(Ack), other func(line string)) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var n uint64
		var at int64
		if _, err := fmt.Sscanf(lines.Text(), "%d %d", &n, &at); err != nil {
			other(lines.Text())
			continue
		}
		ack(Ack{N: n, At: time.Unix(0, at)})
	}
}

// Writer puts records, one after the other, and keeps the answers.
type Writer struct {
	Address string // host:port
	First   uint64 // the first number; 0 is 1
	Acks    []Ack
	Retries int           // attempts that were not answered
	Slow    int           // how many times longer than usual an attempt may take; 0 is 1
	Pause   time.Duration // before the next record or attempt, at least; 0 is next to none
	// OnAck, when not nil, is told of each answer.
	OnAck func(Ack)
}

// Run puts records until ctx ends. A record that is not answered is put again,
// over a new connection; only answers count.
func (w *Writer) Run(ctx context.Context) {
	var c net.Conn
	var answers *bufio.Reader
	defer func() {
		if c != nil {
			c.Close() //nolint:errcheck // only answers count
		}
	}()
	for n := max(w.First, 1); ctx.Err() == nil; {
		if c == nil {
			fresh, err := (&net.Dialer{Timeout: w.slow(dialTimeout)}).DialContext(ctx, "tcp", w.Address)
			if err != nil {
				w.Retries++
				rest(ctx, max(retryPause, w.Pause))
				continue
			}
			c, answers = fresh, bufio.NewReaderSize(fresh, lineBytesMax)
		}
		if err := put(c, answers, n, w.slow(ackTimeout)); err != nil {
			w.Retries++
			c.Close() //nolint:errcheck // broken already
			c = nil
			rest(ctx, w.Pause)
			continue
		}
		ack := Ack{n, time.Now()}
		w.Acks = append(w.Acks, ack)
		if w.OnAck != nil {
			w.OnAck(ack)
		}
		n++
		rest(ctx, max(idleInterval, w.Pause))
	}
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// slow is a bound on a machine as slow as this.
func (w *Writer) slow(d time.Duration) time.Duration { return d * time.Duration(max(w.Slow, 1)) }

func put(c net.Conn, answers *bufio.Reader, n uint64, within time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "put %d\n", n); err != nil {
		return err
	}
	line, err := answers.ReadString('\n')
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("ok %d\n", n); line != want {
		return fmt.Errorf("answered %q, want %q", line, want)
	}
	return nil
}

// Gap is the longest time between two answers and when it began.
func (w *Writer) Gap() (longest time.Duration, from time.Time) {
	for i := 1; i < len(w.Acks); i++ {
		if d := w.Acks[i].At.Sub(w.Acks[i-1].At); d > longest {
			longest, from = d, w.Acks[i-1].At
		}
	}
	return longest, from
}

// Missing returns the answered numbers that are not in the file.
func Missing(acks []Ack, present []uint64) []uint64 {
	slices.Sort(present)
	var out []uint64
	for _, a := range acks {
		if _, ok := slices.BinarySearch(present, a.N); !ok {
			out = append(out, a.N)
		}
	}
	return out
}

// List asks the service for the numbers in its file, and again until it
// answers or ctx ends.
func List(ctx context.Context, address string) ([]uint64, error) {
	for {
		numbers, err := list(ctx, address)
		if err == nil {
			return numbers, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("list records: %w", errors.Join(ctx.Err(), err))
		}
		rest(ctx, retryPause)
	}
}

func list(ctx context.Context, address string) ([]uint64, error) {
	c, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // the list is there, or why not
	if err := c.SetDeadline(time.Now().Add(listTimeout)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, "list\n"); err != nil {
		return nil, err
	}
	var numbers []uint64
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if lines.Text() == "end" {
			return numbers, nil
		}
		n, err := strconv.ParseUint(strings.TrimSpace(lines.Text()), 10, 64)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return nil, errors.Join(errors.New("the list has no end"), lines.Err())
}
