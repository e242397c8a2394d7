// Package stories runs a whole pair, its witness and a client in namespaces, with
// the real agents, and breaks it: power, cables, agents. Each test ends with a
// look for what was left behind and with the copies compared.
package stories

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
	"hapair/test/lab/record"
)

func TestMain(m *testing.M) {
	lab.Reexec()
	os.Exit(m.Run())
}

const (
	settle = 30 * time.Second
	steady = time.Second
)

// pair is a lab with a record service on it and a writer on its client.
type pair struct {
	*lab.Lab
	t     *testing.T
	halab string
}

// newPair brings up a pair with ext4, the record service and an address, and
// waits until all of it serves.
func newPair(t *testing.T, change func(*lab.Options)) *pair {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces, mounts and loop devices")
	}
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"haagent-lab", "hactl", "halab"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			t.Skipf("needs bin/%s: make build", program)
		}
	}
	p := &pair{t: t, halab: filepath.Join(bin, "halab")}
	o := lab.Options{
		Dir: filepath.Join(t.TempDir(), "lab"), Size: 64 << 20, Filesystem: "ext4", Tether: true, Log: t.Logf,
		Agent: []string{filepath.Join(bin, "haagent-lab")},
		Services: []string{
			"mount: {path: /srv/pg, type: ext4}",
			fmt.Sprintf("{name: records, exec: {start: [%[1]s, recordd, start], stop: [%[1]s, recordd, stop], status: [%[1]s, recordd, status]}}", p.halab),
			"address: {ip: " + lab.ServiceAddress + "/24, dev: eth0}",
		},
	}
	if change != nil {
		change(&o)
	}
	if p.Lab, err = lab.Up(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	return p
}

func (p *pair) end() {
	if p.t.Failed() {
		for _, name := range p.Nodes() {
			if text, err := os.ReadFile(p.LogFile(name)); err == nil {
				p.t.Logf("--- log of %s\n%s", name, text)
			}
		}
	}
	if err := p.Down(); err != nil {
		p.t.Error(err)
	}
	if leaks := p.Leaks(); len(leaks) > 0 {
		p.t.Errorf("left behind: %q", leaks)
	}
}

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// await waits for the resource to be as wanted on a node.
func (p *pair) await(name string, ok func(*apiv1.Resource) bool) *apiv1.Resource {
	p.t.Helper()
	r, err := p.AwaitResource(p.t.Context(), name, settle, ok)
	p.must(err)
	return r
}

func serving(r *apiv1.Resource) bool {
	idle := func(s apiv1.Service) bool { return s.State != apiv1.ServiceRunning }
	return r.Role == "Primary" && len(r.Services) > 0 && !slices.ContainsFunc(r.Services, idle)
}

func secondary(r *apiv1.Resource) bool { return r.Role == "Secondary" }

func inSync(r *apiv1.Resource) bool {
	return len(r.InSync) == 2 && r.DiskState == "UpToDate" && len(r.Peers) == 1 && r.Peers[0].Replication == "Established"
}

// up waits for the first Primary and for both copies, and returns the Primary
// and the other.
func (p *pair) up() (primary, other string) {
	p.t.Helper()
	nodes := p.Data()
	r := p.await(nodes[0], func(r *apiv1.Resource) bool { return r.Primary != "" && inSync(r) })
	primary, other = r.Primary, nodes[0]
	if primary == nodes[0] {
		other = nodes[1]
	}
	p.await(primary, serving)
	return primary, other
}

// writer is a record writer on the client machine.
type writer struct {
	p    *pair
	cmd  *exec.Cmd
	out  *syncBuffer
	done chan error
}

func (p *pair) write(first uint64) *writer {
	p.t.Helper()
	w := &writer{p: p, out: new(syncBuffer), done: make(chan error, 1)}
	w.cmd = exec.Command(p.halab, "writer", "--first", fmt.Sprint(first), "--address", fmt.Sprintf("%s:%d", lab.ServiceAddress, record.DefaultPort))
	w.cmd.Stdout, w.cmd.Stderr = w.out, w.out
	p.must(p.Enter(lab.Client, w.cmd))
	go func() { w.done <- w.cmd.Wait() }()
	w.flowing()
	return w
}

// flowing waits until records are accepted for a while from now on.
func (w *writer) flowing() {
	w.p.t.Helper()
	deadline := time.Now().Add(settle)
	from := time.Now()
	for w.out.lastAck().Before(from.Add(steady)) {
		if time.Now().After(deadline) {
			w.p.t.Fatalf("no record is accepted any more; the writer said %q", w.out.tail())
		}
		select {
		case err := <-w.done:
			w.p.t.Fatalf("the writer ended: %v: %s", err, w.out.tail())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the writer: every accepted record must be in the file.
func (w *writer) stop() {
	w.p.t.Helper()
	w.p.must(w.cmd.Process.Signal(syscall.SIGINT))
	if err := <-w.done; err != nil {
		w.p.t.Errorf("the writer: %v: %s", err, w.out.tail())
	}
	if last := w.out.tail(); !strings.Contains(last, "missing 0,") {
		w.p.t.Errorf("the writer said %q", last)
	} else {
		w.p.t.Log(last)
	}
}

// same compares both disks once nothing is on its way.
func (p *pair) same(primary string) {
	p.t.Helper()
	nodes := p.Data()
	equal := func() bool {
		_, err := p.Run(p.t.Context(), primary, "sync", "-f", "/srv/pg")
		p.must(err)
		a, err := os.ReadFile(p.Image(nodes[0]))
		p.must(err)
		b, err := os.ReadFile(p.Image(nodes[1]))
		p.must(err)
		return bytes.Equal(a, b)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	for !equal() {
		select {
		case <-ctx.Done():
			p.t.Error("the copies differ")
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
