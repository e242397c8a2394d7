package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// Real applications on the mirrored file system, while the Primary loses its
// power again and again: HAPAIR_APPS=1 runs them (make apps), HAPAIR_KILLS says
// how often each loses its Primary.
const (
	appVolume   = 512 * mib // the smallest xfs is 300 MiB
	killsShort  = 2
	appProgress = 200 // answers between two blows
)

// appFilesystems are those that each application is tried on.
var appFilesystems = []string{"ext4", "xfs"}

// tool is a program that an application test needs, and who brings it.
type tool struct{ name, pkg string }

// needs skips a test of applications that is not asked for; the rest is has.
func needs(t *testing.T, tools ...tool) {
	t.Helper()
	if os.Getenv("HAPAIR_APPS") == "" {
		t.Skip("real applications: make apps, or HAPAIR_APPS=1")
	}
	has(t, tools...)
}

// has fails a test whose programs are missing.
func has(t *testing.T, tools ...tool) {
	t.Helper()
	var missing, packages []string
	for _, u := range tools {
		if program(u.name) == "" {
			missing, packages = append(missing, u.name), append(packages, u.pkg)
		}
	}
	if len(missing) > 0 {
		t.Fatalf("no %s; run: sudo apt-get install -y %s", strings.Join(missing, ", "), strings.Join(packages, " "))
	}
}

// program finds a program, also where Debian keeps those of PostgreSQL; "" when
// there is none.
func program(name string) string {
	for _, dir := range append([]string{"/usr/sbin", "/sbin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		if p := filepath.Join(dir, name); exists(p) {
			return p
		}
	}
	found, err := filepath.Glob(filepath.Join("/usr/lib/postgresql/*/bin", name))
	if err != nil || len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// newApps is a pair with a file system at /srv/pg and services above it.
func newApps(t *testing.T, filesystem string, services ...string) *pair {
	t.Helper()
	p := newPair(t, true, func(o *lab.Options) {
		o.Filesystem, o.Size = filesystem, appVolume
		o.Services = append([]string{fmt.Sprintf("mount: {path: /srv/pg, type: %s}", filesystem)}, services...)
	})
	p.settle()
	return p
}

// kill cuts the power of the Primary under load, waits until the other serves,
// lets judge look at it, and brings the first back.
func (p *pair) kill(judge func(primary string)) {
	p.t.Helper()
	primary := p.primary()
	survivor := p.other(primary)
	// Under load on a busy machine the link may have broken; a copy that is being
	// filled may not take over, and should not.
	p.resource(primary, "serves, both copies are current", func(r *apiv1.Resource) bool { return serving(r) && inSync(r) })
	p.must(p.PowerOff(primary))
	p.takeover(survivor)
	judge(survivor)
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
}

// sound ends both agents in order and looks at the file system that the last
// Primary has unmounted.
func (p *pair) sound(filesystem string) {
	p.t.Helper()
	primary, secondary := p.settle()
	p.must(p.Stop(secondary))
	p.must(p.Stop(primary))
	argv := []string{program("e2fsck"), "-fn", p.Image(primary)}
	if filesystem == "xfs" {
		argv = []string{program("xfs_repair"), "-n", "-f", p.Image(primary)}
	}
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		p.t.Errorf("%q: %v:\n%s", argv, err, out)
		return
	}
	p.say("%s is clean: %s", filesystem, filepath.Base(argv[0]))
}

// start starts a command on a node that nobody waits for: it ends with the node,
// or with the test.
func (p *pair) start(node string, argv ...string) {
	p.t.Helper()
	path, err := p.LookPath(argv[0])
	p.must(err)
	cmd := exec.Command(path, argv[1:]...)
	p.must(p.Enter(node, cmd))
	go cmd.Wait()                              //nolint:errcheck // killed
	p.t.Cleanup(func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
}

// load runs a command on a node over and over until the returned function is
// called: what it is answered does not matter, the work does.
func (p *pair) load(node string, argv ...string) (stop func()) {
	ctx, cancel := context.WithCancel(p.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			if _, err := p.Run(ctx, node, argv...); err != nil {
				<-time.After(deviceRetry) // nobody serves at the moment
			}
		}
	})
	stopped := sync.OnceFunc(func() { cancel(); done.Wait() })
	p.t.Cleanup(stopped)
	return stopped
}

// ledger keeps which numbers a client was told are committed.
type ledger struct {
	p    *pair
	mu   sync.Mutex
	next uint64
	done []uint64
	more chan struct{}
}

func (p *pair) ledger() *ledger { return &ledger{p: p, more: make(chan struct{}, 1)} }

// number is one that nobody had.
func (l *ledger) number() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	return l.next
}

func (l *ledger) committed(n uint64) {
	l.mu.Lock()
	l.done = append(l.done, n)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// all is what is committed so far.
func (l *ledger) all() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]uint64{}, l.done...)
}

// progress waits until more is committed.
func (l *ledger) progress(more int) {
	l.p.t.Helper()
	want := len(l.all()) + more
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for len(l.all()) < want {
		select {
		case <-l.more:
		case <-timeout.C:
			l.p.t.Fatalf("%d transactions are committed, and not %d after %s", len(l.all()), want, patience)
		}
	}
}

// look compares what was committed before a listing with that listing, one
// number a line.
func (l *ledger) look(committed []uint64, listing string) {
	l.p.t.Helper()
	present := map[string]bool{}
	for line := range strings.Lines(listing) {
		present[strings.TrimSpace(line)] = true
	}
	var missing []uint64
	for _, n := range committed {
		if !present[fmt.Sprint(n)] {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		l.p.t.Errorf("%d of %d committed transactions are gone: %v", len(missing), len(committed), missing[:min(20, len(missing))])
	}
	l.p.say("%d committed transactions, lost = %d (%d are there)", len(committed), len(missing), len(present))
}

// session is a program that takes commands on its input and says so when each
// is done, as psql and sqlite3 do.
type session struct {
	cmd     *exec.Cmd
	in, out *os.File
	buf     []byte
	ended   chan struct{}
}

// converse starts one on a node.
func (p *pair) converse(node string, argv ...string) (*session, error) {
	path, err := p.LookPath(argv[0])
	if err != nil {
		return nil, err
	}
	stdin, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, stdin.Close(), in.Close())
	}
	s := &session{cmd: exec.Command(path, argv[1:]...), in: in, out: out, ended: make(chan struct{})}
	s.cmd.Stdin, s.cmd.Stdout = stdin, stdout
	err = errors.Join(p.Enter(node, s.cmd), stdin.Close(), stdout.Close())
	if err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	go func() { // a dead one that nobody buries keeps its node from ending
		defer close(s.ended)
		s.cmd.Wait() //nolint:errcheck // killed
	}()
	return s, nil
}

// line waits for the program's next line.
func (s *session) line(within time.Duration) (string, error) {
	if err := s.out.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	for {
		if text, rest, ok := strings.Cut(string(s.buf), "\n"); ok {
			s.buf = []byte(rest)
			return text, nil
		}
		chunk := make([]byte, 4096)
		n, err := s.out.Read(chunk)
		s.buf = append(s.buf, chunk[:n]...)
		if err != nil {
			return "", err
		}
	}
}

// end kills the program.
func (s *session) end() {
	s.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-s.ended
	s.in.Close()
	s.out.Close()
}

// answerTime is how long a statement is waited for before its outcome counts as
// unknown; the next one goes to a new session.
const answerTime = 3 * time.Second

// commit lets a client commit numbered transactions until ctx ends, with the
// statements that text makes of a number and that end in the number's echo.
// Where there is nobody to talk to, connect says so and is called again.
func (l *ledger) commit(ctx context.Context, connect func() (*session, error), text func(n uint64) string) {
	for ctx.Err() == nil {
		s, err := connect()
		if err != nil {
			<-time.After(tick)
			continue
		}
		for ctx.Err() == nil {
			n := l.number()
			if _, err := s.in.WriteString(text(n)); err != nil {
				break
			}
			if got, err := s.line(answerTime); err != nil || got != fmt.Sprintf("done %d", n) {
				break
			}
			l.committed(n)
		}
		s.end()
	}
}

// clients runs commit for several clients until the returned function is called.
func (l *ledger) clients(count int, connect func() (*session, error), text func(n uint64) string) (stop func()) {
	ctx, cancel := context.WithCancel(l.p.ctx)
	var all sync.WaitGroup
	for range count {
		all.Go(func() { l.commit(ctx, connect, text) })
	}
	stopped := sync.OnceFunc(func() { cancel(); all.Wait() })
	l.p.t.Cleanup(stopped)
	return stopped
}
