package netns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"hapair/test/check/history"
)

// searchTime ends a search for an order; each takes milliseconds.
const searchTime = 30 * time.Second

// historian keeps what the clients on both nodes are told.
type historian struct {
	p       *pair
	mu      sync.Mutex
	history history.History
	lines   bytes.Buffer // as they were told
	done    int          // lines
	judged  bool
	garbled error
	more    chan struct{}
	running map[string]*askers
}

// askers are the clients on one node, as the test sees them.
type askers struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process and its output have ended
	err   error         // how; to be read after that
}

// historian starts clients on both data nodes.
func (p *pair) historian() *historian {
	p.t.Helper()
	h := &historian{p: p, more: make(chan struct{}, 1), running: map[string]*askers{}}
	for _, node := range p.Data() {
		h.start(node)
	}
	p.t.Cleanup(h.abandon)
	return h
}

// abandon ends the clients of a test that did not come to judge; what they were
// told is judged all the same.
func (h *historian) abandon() {
	for _, a := range h.running {
		a.cmd.Process.Kill() //nolint:errcheck // it may have ended; a hung one ends with its node
	}
	if h.judged {
		return
	}
	for node := range h.running {
		h.await(node)
	}
	h.verdict()
}

// start starts the clients of a node: after it was switched on, or after stop.
func (h *historian) start(node string) {
	h.p.t.Helper()
	self, err := os.Executable()
	h.p.must(err)
	a := &askers{ended: make(chan struct{}), cmd: exec.Command(self, registerWord,
		"-device", "/dev/hapair/"+h.p.Resource()+"/0", "-first", fmt.Sprint(h.p.next), "-seed", fmt.Sprint(h.p.next))}
	h.p.next += writerSpan
	r, out, err := os.Pipe()
	h.p.must(err)
	a.cmd.Stdout, a.cmd.Stderr = out, os.Stderr
	if err := errors.Join(h.p.Enter(node, a.cmd), out.Close()); err != nil {
		h.p.t.Fatal(errors.Join(err, r.Close()))
	}
	h.running[node] = a
	name := fmt.Sprintf("%s.%d", node, h.p.next/writerSpan) // each process counts its requests from 1
	go func() {                                             // ends with the process
		defer close(a.ended)
		h.read(name, r)
		a.err = a.cmd.Wait()
	}()
}

func (h *historian) read(name string, r *os.File) {
	defer r.Close()
	lines := bufio.NewReader(r)
	for {
		text, err := lines.ReadString('\n')
		if err != nil {
			return // a line that death cut short says nothing
		}
		h.mu.Lock()
		fmt.Fprintf(&h.lines, "%s %s", name, text)
		if err := h.history.Line(name, text[:len(text)-1]); err != nil && h.garbled == nil {
			h.garbled = err
		}
		h.done++
		h.mu.Unlock()
		select {
		case h.more <- struct{}{}:
		default:
		}
	}
}

func (h *historian) told() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done
}

// progress waits until clients have told more; half of it are answers.
func (h *historian) progress(lines int) {
	h.p.t.Helper()
	want := h.told() + lines
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for h.told() < want {
		select {
		case <-h.more:
		case <-timeout.C:
			h.p.t.Fatalf("the clients told %d lines, and not %d after %s", h.told(), want, patience)
		}
	}
}

// died says that the power of a node was cut, and its clients' with it.
func (h *historian) died(node string) {
	h.p.t.Helper()
	h.await(node)
	delete(h.running, node)
}

// stop lets the clients of a node end their requests.
func (h *historian) stop(node string) {
	h.p.t.Helper()
	a := h.running[node]
	h.p.must(a.cmd.Process.Signal(syscall.SIGTERM))
	h.await(node)
	if a.err != nil {
		h.p.t.Errorf("the clients on %s ended: %v", node, a.err)
	}
	delete(h.running, node)
}

func (h *historian) await(node string) {
	h.p.t.Helper()
	select {
	case <-h.running[node].ended:
	case <-time.After(patience):
		h.p.t.Fatalf("the clients on %s still wait for their device after %s", node, patience)
	}
}

// lost says that both nodes were without power between two instants.
func (h *historian) lost(from, to time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history.Lost(from, to)
}

// judge ends all clients and looks for an order that explains what they were
// told.
func (h *historian) judge() {
	h.p.t.Helper()
	for _, node := range h.p.Data() {
		if h.running[node] != nil {
			h.stop(node)
		}
	}
	h.verdict()
}

func (h *historian) verdict() {
	h.p.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.judged = true
	if h.garbled != nil {
		h.p.t.Error(h.garbled)
	}
	c := h.history.Counts()
	v, err := h.history.Judge(searchTime)
	h.p.say("%d reads, %d writes and %d flushes were answered, %d requests were not; %d registers, the longest search took %s",
		c.Reads, c.Writes, c.Flushes, c.Open, v.Registers, v.Longest.Round(time.Millisecond))
	if err != nil {
		h.p.t.Errorf("the answers have no order: %v", err)
		h.keep()
	}
}

// keep keeps the lines of a history that is wrong.
func (h *historian) keep() {
	dir := os.Getenv("HAPAIR_KEEP")
	if dir == "" {
		return
	}
	file := filepath.Join(dir, h.p.t.Name()+".history")
	h.p.must(os.WriteFile(file, h.lines.Bytes(), 0o600))
	h.p.say("the history is in %s", file)
}
