package netns

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// manager is the socket of a node's service manager, and what it was told.
type manager struct {
	conn *net.UnixConn
	done sync.WaitGroup

	mu   sync.Mutex
	told []string // in order, one word each
}

// newManager listens below the directory that a node of a lab to be has as
// /var/lib/hapair.
func newManager(t *testing.T, dir, node string) *manager {
	t.Helper()
	path := filepath.Join(dir, node, "lib", "notify")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{conn: conn}
	m.done.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return // closed
			}
			m.mu.Lock()
			m.told = append(m.told, strings.Split(string(b[:n]), "\n")...)
			m.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		conn.Close()
		m.done.Wait()
	})
	return m
}

// words are those told so far.
func (m *manager) words() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.told)
}

func (m *manager) count(word string) (n int) {
	for _, w := range m.words() {
		if w == word {
			n++
		}
	}
	return n
}

// An agent is asked to end: the Primary hands over first; the Secondary just
// leaves. Nothing waits for a lease. Who manages it as a service is told what
// happens, when it has happened: READY not before everything answers, the watchdog
// while it goes on, and how long a stop may take.
func TestStoppedAgent(t *testing.T) {
	managers := map[string]*manager{}
	p := newPair(t, true, func(o *lab.Options) {
		for _, node := range []string{"alpha", "beta"} {
			managers[node] = newManager(t, o.Dir, node)
		}
		o.Env = []string{"NOTIFY_SOCKET=/var/lib/hapair/notify", "WATCHDOG_USEC=2000000"}
	})
	primary, secondary := p.settle()
	m := managers[primary]
	p.managerTold(m, "WATCHDOG=1", 2)
	p.managerTold(m, "STATUS=pg: Primary, Connected", 1)
	m.wasReady(t)
	w := p.write()
	w.progress(steady)
	p.must(p.Stop(primary))
	if r := p.takeover(secondary); r.Primary != secondary {
		t.Errorf("the record names %q as Primary", r.Primary)
	}
	p.handedOver(secondary, primary)
	w.progress(steady)
	m.wasStopped(t)
	p.must(p.Start(primary))
	p.rejoined(primary)
	p.managerTold(m, "READY=1", 2)
	if r := p.look(primary); r != nil && r.Suspect {
		t.Errorf("%s ended in order and is suspect", primary)
	}
	w.progress(steady)
	p.must(p.Stop(primary)) // the Secondary now
	p.resource(secondary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	p.must(p.Start(primary))
	p.rejoined(primary)
	w.progress(steady)
	w.stop()
	p.finish()
}

// managerTold waits until a manager was told a word so often.
func (p *pair) managerTold(m *manager, word string, times int) {
	p.t.Helper()
	p.eventually("the manager is told "+word, func() error {
		if n := m.count(word); n < times {
			return fmt.Errorf("%d times, want %d", n, times)
		}
		return nil
	})
}

// wasReady: it was told once, after all that has to be there.
func (m *manager) wasReady(t *testing.T) {
	t.Helper()
	words := m.words()
	last := slices.IndexFunc(words, func(w string) bool {
		return strings.HasPrefix(w, "STATUS=starting: ") && strings.HasSuffix(w, " control socket")
	})
	if last < 0 || slices.Index(words, "READY=1") < last || m.count("READY=1") != 1 {
		t.Errorf("told %q", words)
	}
}

// wasStopped: the hand-over may take as long as the services may, three of them a
// minute each, and the rest; and the watchdog is petted no more.
func (m *manager) wasStopped(t *testing.T) {
	t.Helper()
	words := m.words()
	words = words[max(0, slices.Index(words, "STOPPING=1")):]
	at := slices.Index(words, "STATUS=stopping: controllers")
	if words[0] != "STOPPING=1" || slices.Contains(words, "WATCHDOG=1") || at < 0 || words[at+1] != "EXTEND_TIMEOUT_USEC=280000000" {
		t.Errorf("told %q", words)
	}
}

// handedOver sees in its events that a node did not have to wait.
func (p *pair) handedOver(node, by string) {
	p.t.Helper()
	events, err := p.Events(p.ctx, node, 0)
	p.must(err)
	if !slices.ContainsFunc(events, func(e apiv1.Event) bool { return strings.Contains(e.Text, by+" handed over to this node") }) {
		p.t.Errorf("%s was not handed the resource by %s: %v", node, by, events)
	}
}
