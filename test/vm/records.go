package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hapair/test/lab"
	"hapair/test/lab/record"
	"hapair/test/play"
	"hapair/test/script"
)

// writerSpan keeps the numbers of writers apart.
const writerSpan = 1_000_000

// pause is the client's between two records: one that did not rest would have the
// processors, and leave none to the ledger.
const pause = 150 * time.Millisecond

// writer is a client of the record service on the client's machine.
type writer struct {
	cancel context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	acks   []record.Ack
}

// Write implements play.Pair.
func (l *Lab) Write() (play.Writer, error) {
	argv, err := json.Marshal([]string{"/bin/halab", "writer", "--first", fmt.Sprint(l.next), "--address", serviceAddress, "--slow", fmt.Sprint(slow),
		"--pause", pause.String()})
	if err != nil {
		return nil, err
	}
	l.next += writerSpan
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		resp, err := l.machines[lab.Client].request(ctx, http.MethodPost, "/exec", argv)
		if err != nil {
			return // it answers nothing, and that is seen
		}
		defer resp.Body.Close() //nolint:errcheck // only read from
		w.read(resp.Body)
	}()
	return w, nil
}

// read takes the answers, by the clock of this machine.
func (w *writer) read(r io.Reader) {
	record.Follow(r, func(a record.Ack) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.acks = append(w.acks, record.Ack{N: a.N, At: time.Now()})
	}, func(string) {})
}

// Acks implements play.Writer.
func (w *writer) Acks(n int) []record.Ack {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acks[n:])
}

// End implements play.Writer.
func (w *writer) End() {
	w.cancel()
	<-w.done
}

// Check implements play.Pair.
func (l *Lab) Check(ctx context.Context, primary string, answered []record.Ack) error {
	out, err := l.machines[primary].run(ctx, "/bin/sh", "-c", "sync; echo 3 >/proc/sys/vm/drop_caches; cat /srv/pg/records")
	if err != nil {
		return err
	}
	var present []uint64
	for line := range strings.Lines(out) {
		n, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return fmt.Errorf("the records on %s are damaged: %q", primary, line)
		}
		present = append(present, n)
	}
	if missing := record.Missing(answered, present); len(missing) > 0 {
		return fmt.Errorf("%d of %d answered records are not on the disk of %s: %v", len(missing), len(answered), primary, missing)
	}
	l.Say("%d answered records, all looked for on the disk of %s, none is missing", len(answered), primary)
	return l.identical(ctx, primary)
}

// identical waits until what is on its way has arrived, and compares the disks.
func (l *Lab) identical(ctx context.Context, primary string) error {
	for end := time.Now().Add(doTimeout); ; {
		if _, err := l.machines[primary].run(ctx, "/bin/sync"); err != nil {
			return err
		}
		a, err := os.ReadFile(filepath.Join(l.Dir, script.Alpha, "volume"))
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(l.Dir, script.Beta, "volume"))
		if err != nil || bytes.Equal(a, b) {
			l.Say("both copies are the same, %d MiB", len(a)>>20)
			return err
		}
		if time.Now().After(end) {
			return errors.New("the copies differ")
		}
	}
}
