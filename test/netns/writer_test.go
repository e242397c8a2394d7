package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"hapair/test/lab"
	"hapair/test/lab/record"
)

// writerSpan keeps the numbers of writers apart.
const writerSpan = 1_000_000

// writer is a client of the record service, on the client machine.
type writer struct {
	p    *pair
	cmd  *exec.Cmd
	done chan struct{} // closed when its output ended

	mu   sync.Mutex
	acks []record.Ack
	more chan struct{} // a token when there are more
}

// write starts a writer. It is ended with the test, if nobody does earlier.
func (p *pair) write() *writer {
	p.t.Helper()
	path, err := p.LookPath("halab")
	p.must(err)
	address := fmt.Sprintf("%s:%d", lab.ServiceAddress, record.DefaultPort)
	w := &writer{p: p, done: make(chan struct{}), more: make(chan struct{}, 1),
		cmd: exec.Command(path, "writer", "--first", fmt.Sprint(p.next), "--address", address)}
	p.next += writerSpan
	r, out, err := os.Pipe() // our own: Wait must not close it before it is read to its end
	p.must(err)
	w.cmd.Stdout = out
	if err := errors.Join(p.Enter(lab.Client, w.cmd), out.Close()); err != nil {
		p.t.Fatal(errors.Join(err, r.Close()))
	}
	go w.read(r)
	go w.cmd.Wait() //nolint:errcheck // killed
	p.t.Cleanup(w.end)
	return w
}

// read follows the writer's output until its end.
func (w *writer) read(r *os.File) {
	defer close(w.done)
	defer r.Close()
	record.Follow(r, func(a record.Ack) {
		w.mu.Lock()
		w.acks = append(w.acks, a)
		w.mu.Unlock()
		select {
		case w.more <- struct{}{}:
		default:
		}
	}, func(string) {}) // the reckoning
}

// end kills the writer; what it was answered is kept.
func (w *writer) end() {
	w.cmd.Process.Kill() //nolint:errcheck // it may have ended by itself
	<-w.done
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acks)
}

// progress waits until more records are answered than were when it was called.
func (w *writer) progress(records int) {
	w.p.t.Helper()
	want := w.count() + records
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for w.count() < want {
		select {
		case <-w.more:
		case <-w.done:
			w.p.t.Fatal("the writer ended")
		case <-timeout.C:
			w.p.t.Fatalf("%d records were answered, and not %d after %s", w.count(), want, patience)
		}
	}
}

// stop ends the writer and adds what it was answered to what must be there. It
// returns the longest time without an answer.
func (w *writer) stop() time.Duration {
	w.p.t.Helper()
	w.end()
	for _, a := range w.acks {
		w.p.acked[a.N] = true
	}
	gap, from := (&record.Writer{Acks: w.acks}).Gap()
	w.p.say("%d records answered, longest gap %s from %s", len(w.acks), gap.Round(time.Millisecond), from.UTC().Format("15:04:05.000"))
	return gap
}
