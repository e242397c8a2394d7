package systemdlab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writer puts records through the service address, from the client.
type writer struct {
	*lab
	cmd *exec.Cmd
	out string // a file: a line for each answer
}

// startWriter returns when the first record was answered.
func (l *lab) startWriter(first int) *writer {
	l.t.Helper()
	halab, err := filepath.Abs(root + "/bin/halab")
	if err != nil {
		l.t.Fatal(err)
	}
	w := &writer{lab: l, out: filepath.Join(l.dir, "writer")}
	out, err := os.Create(w.out)
	if err != nil {
		l.t.Fatal(err)
	}
	defer out.Close()
	w.cmd = exec.Command("ip", "netns", "exec", l.netns, halab, "writer", "--pause", "5ms", "--first", strconv.Itoa(first))
	w.cmd.Stdout, w.cmd.Stderr = out, out
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := w.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.await("records are answered", func() bool { return w.answered() > 10 })
	return w
}

func (w *writer) answered() int {
	text, err := os.ReadFile(w.out)
	if err != nil {
		w.t.Fatal(err)
	}
	return bytes.Count(text, []byte("\n"))
}

var reckoning = regexp.MustCompile(`answered (\d+), missing 0, .*longest gap (\S+) from`)

// stop ends it: nothing that was answered is missing, and for no longer than most
// there was no answer.
func (w *writer) stop(what string, most time.Duration) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	err := w.cmd.Wait()
	text, rerr := os.ReadFile(w.out)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	last := lines[len(lines)-1]
	w.say("%s: %s", what, last)
	found := reckoning.FindStringSubmatch(last)
	if err != nil || rerr != nil || found == nil {
		w.t.Fatalf("%s: %v, %v: %s", what, err, rerr, last)
	}
	if gap, err := time.ParseDuration(found[2]); err != nil || gap > most {
		w.t.Errorf("%s: no answer for %v, want at most %v (%v)", what, gap, most, err)
	}
}

// inOrder sees that the journal has lines that match, one after the other.
func (b *box) inOrder(what, since string, patterns ...string) {
	b.t.Helper()
	lines := b.journal(since)
	at := 0
	for _, p := range patterns {
		re := regexp.MustCompile(p)
		found := false
		for ; at < len(lines) && !found; at++ {
			found = re.MatchString(lines[at])
		}
		if !found {
			b.t.Errorf("%s: the journal of %s has no %q after the others\n%s", what, b.name, p, strings.Join(lines, "\n"))
			return
		}
	}
}

func (b *box) never(since string, patterns ...string) {
	b.t.Helper()
	for _, line := range b.journal(since) {
		for _, p := range patterns {
			if strings.Contains(line, p) {
				b.t.Errorf("the journal of %s has %s", b.name, line)
			}
		}
	}
}

// now is an instant for the journal.
func now() string { return "@" + strconv.FormatInt(time.Now().Unix(), 10) }

// begin boots the pair with its witness, and starts the agents as an operator does.
func (l *lab) begin() *box {
	l.t.Helper()
	l.boxes["gamma"].boot("hapair-witness.service")
	for _, name := range []string{"alpha", "beta"} {
		b := l.boxes[name]
		b.boot()
		b.must("hactl", "create-metadata", "pg", "--assume-clean")
	}
	for _, name := range []string{"alpha", "beta"} {
		b := l.boxes[name]
		b.must("systemctl", "start", "hapair")
		if _, ok := b.status(); !ok {
			l.t.Errorf("%s: started, and hactl does not work", name)
		}
	}
	l.await("somebody serves", func() bool { return l.primary() != nil })
	p := l.primary()
	l.awaitWell(p)
	return p
}

func TestServiceOfTheMachine(t *testing.T) {
	l := newLab(t)
	p := l.begin()
	l.said(p)
	for _, s := range []struct {
		name string
		run  func(p *box) (now *box)
	}{
		{"poweroff", l.poweroff},
		{"restart", l.restart},
		{"killed", l.killed},
		{"hangs", l.hangs},
		{"no logind", l.withoutLogind},
	} {
		l.say("--- %s, %s is Primary", s.name, p.name)
		if p = s.run(p); t.Failed() {
			return
		}
	}
}

// said is what systemd knows of an agent that runs.
func (l *lab) said(p *box) {
	l.t.Helper()
	l.await("systemctl status tells the role", func() bool { return p.property("hapair", "StatusText") == "pg: Primary, Connected" })
	was := p.property("hapair", "WatchdogTimestampMonotonic")
	l.await("the watchdog is petted", func() bool { return p.property("hapair", "WatchdogTimestampMonotonic") != was })
	if got := l.boxes["gamma"].property("hapair-witness", "StatusText"); got != "all nodes are alive" {
		l.t.Errorf("the witness says %q", got)
	}
	if got := p.output("systemd-inhibit", "--list", "--no-pager"); !strings.Contains(got, "hapair") {
		l.t.Errorf("nobody holds a shutdown up:\n%s", got)
	}
}

// poweroff: services stop in their order while all of systemd is as it was, the peer
// takes over at once, and only then does the machine go down. It comes back.
func (l *lab) poweroff(p *box) *box {
	o := l.other(p)
	w := l.startWriter(1)
	since := now()
	p.must("systemctl", "poweroff")
	l.awaitPrimary(o)
	p.off()
	w.stop("poweroff", 15*time.Second) // 2 s of them are what beside.service takes
	p.inOrder("poweroff", since, `haagent.*the machine is about to go down`,
		`"address:192.168.1.50/24", "was": "stopping", "now": "stopped"`, `Stopped beside.service`, `Stopped records.service`, `haagent.*unmounted`,
		`asked": "ledger-demote`, `Stopping hapair.service`, `Stopped hapair.service`)
	p.never(since, "deactivating", "Failed with result", "/srv/pg: target is busy")
	l.await(p.name+" is known to have left", func() bool { return strings.Contains(o.property("hapair", "StatusText"), p.name+" is") })
	p.boot("hapair.service") // without a network at first
	l.awaitWell(o)
	return o
}

// restart: as with a new version. The Primary hands over and comes back.
func (l *lab) restart(p *box) *box {
	o := l.other(p)
	w := l.startWriter(1_000_000)
	since := now()
	p.must("systemctl", "restart", "hapair")
	l.awaitPrimary(o)
	l.awaitWell(o)
	w.stop("restart", 15*time.Second)
	p.inOrder("restart", since, `Stopping hapair.service`, `Stopped beside.service`, `Stopped records.service`, `Stopped hapair.service`, `Started hapair.service`)
	p.never(since, "deactivating", "Failed with result")
	return o
}

// killed: the helper outlives the agent and takes the address away; systemd starts it
// again.
func (l *lab) killed(p *box) *box {
	o := l.other(p)
	w := l.startWriter(2_000_000)
	since := now()
	p.must("systemctl", "kill", "--kill-who=main", "--signal=KILL", "hapair")
	l.awaitPrimary(o)
	l.awaitWell(o)
	w.stop("killed", 15*time.Second)
	if n := p.property("hapair", "NRestarts"); n != "1" {
		l.t.Errorf("restarted %s times", n)
	}
	p.inOrder("killed", since, `code=killed, status=9/KILL`, `deadman: the lease of pg has run out: 192.168.1.50/24 is taken from eth0`)
	p.inOrder("killed", since, `code=killed, status=9/KILL`, `Started hapair.service`)
	if got := p.output("ip", "-o", "addr", "show", "dev", "eth0"); strings.Contains(got, service) {
		l.t.Errorf("%s has the address still: %s", p.name, got)
	}
	return o
}

// hangs: the watchdog ends an agent that does not go on.
func (l *lab) hangs(p *box) *box {
	o := l.other(p)
	w := l.startWriter(3_000_000)
	since := now()
	p.must("systemctl", "kill", "--kill-who=main", "--signal=STOP", "hapair")
	l.awaitPrimary(o)
	l.awaitWell(o)
	w.stop("hangs", 15*time.Second)
	p.inOrder("hangs", since, `hapair.service: Watchdog timeout`, `Started hapair.service`)
	return o
}

// withoutLogind: systemd stops the agent and its services side by side, and nothing
// is lost either.
func (l *lab) withoutLogind(p *box) *box {
	o := l.other(p)
	p.must("systemctl", "mask", "--runtime", "--now", "systemd-logind")
	w := l.startWriter(4_000_000)
	since := now()
	p.must("systemctl", "poweroff")
	l.awaitPrimary(o)
	p.off()
	w.stop("no logind", 15*time.Second)
	p.inOrder("no logind", since, `haagent.*the agent stops in order`, `haagent.*unmounted`, `asked": "ledger-demote`, `Stopped hapair.service`)
	return o
}
