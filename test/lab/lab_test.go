package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hapair/agent/apiv1"
)

func TestMain(m *testing.M) {
	Reexec()
	if dir := os.Getenv("HAPAIR_LAB_TETHERED"); dir != "" {
		if _, err := Up(context.Background(), Options{Dir: dir, NoAgents: true, Tether: true, Size: 16 << 20}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("up")
		select {} // until killed
	}
	if os.Getenv("HAPAIR_LAB_STANDIN") != "" {
		fmt.Fprintln(os.Stderr, standIn())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// standIn is an agent that can do nothing but answer.
func standIn() error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", Socket)
	if errors.Is(err, syscall.EADDRINUSE) { // left by one that was killed
		if err := os.Remove(Socket); err != nil {
			return err
		}
		l, err = net.Listen("unix", Socket)
	}
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		s := apiv1.Status{Node: host, EventSeq: 2}
		s.FillLists()
		answerJSON(w, s)
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		for i := uint64(1); i <= 2; i++ {
			text, err := json.Marshal(apiv1.Event{Seq: i, Kind: apiv1.EventAgent, Text: "since " + r.FormValue("since")})
			if err == nil {
				_, err = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", i, text)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done() // the stream stays open
	})
	mux.HandleFunc("POST /v1/resources/pg/{verb}", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		answerJSON(w, apiv1.ErrorBody{Error: apiv1.Problem{Code: apiv1.CodeRefused, Text: "a stand-in"}})
	})
	return http.Serve(l, mux)
}

func answerJSON(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// newLab brings one up with stand-ins for agents, and takes it down again.
func newLab(t *testing.T, change func(*Options)) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces, mounts and loop devices")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Dir: filepath.Join(t.TempDir(), "lab"), Size: 16 << 20, Agent: []string{self}, Tether: true, KeepMetadata: true,
		Env: []string{"HAPAIR_LAB_STANDIN=1"}, Log: t.Logf,
	}
	if change != nil {
		change(&o)
	}
	l, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
		if leaks := l.Leaks(); len(leaks) > 0 {
			t.Errorf("left behind: %q", leaks)
		}
	})
	return l
}

func run(t *testing.T, l *Lab, node string, argv ...string) string {
	t.Helper()
	out, err := l.Run(t.Context(), node, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func reaches(t *testing.T, l *Lab, from, to, path string) bool {
	t.Helper()
	out, err := l.Run(t.Context(), from, "ping", "-c1", "-W1", "-q", l.Address(to, path))
	if err != nil && strings.Contains(out, "not found") {
		t.Fatal(out)
	}
	return err == nil
}

func TestNodes(t *testing.T) {
	l := newLab(t, nil)
	for _, name := range []string{"alpha", "beta", "gamma", Client} {
		if got := run(t, l, name, "hostname"); got != name {
			t.Errorf("host name of %s is %q", name, got)
		}
	}
	if got := run(t, l, "alpha", "sh", "-c", "ls /sys/class/net | xargs"); got != "eth0 eth1 lo" {
		t.Errorf("devices of alpha: %q", got)
	}
	if got := run(t, l, "alpha", "sh", "-c", "stat -c %s /disks/volume.img; ls /etc/hapair /var/lib/hapair | xargs"); got != "16777216\n/etc/hapair: bmc cluster.psk gossip.key hapair.yaml /var/lib/hapair:" {
		t.Errorf("files of alpha: %q", got)
	}
	// What a node makes is its own.
	run(t, l, "alpha", "sh", "-c", "mkdir -p /srv/pg /dev/hapair/pg && mount -t tmpfs none /srv/pg && touch /run/x /srv/pg/x /var/lib/hapair/x")
	if got := run(t, l, "beta", "sh", "-c", "ls -d /srv/* /dev/hapair /run/x /var/lib/hapair/* 2>/dev/null | wc -l"); got != "0" {
		t.Errorf("beta sees alpha's files: %s", got)
	}
	if _, err := os.Stat("/dev/hapair"); err == nil {
		t.Error("the machine has /dev/hapair")
	}
	if out, err := l.Run(t.Context(), "alpha", "false"); err == nil {
		t.Errorf("false succeeded: %s", out)
	}
}

func TestCables(t *testing.T) {
	l := newLab(t, func(o *Options) { o.NoAgents = true })
	if !reaches(t, l, "alpha", "beta", Crossover) || !reaches(t, l, Client, "beta", LAN) || !reaches(t, l, "gamma", "alpha", LAN) {
		t.Fatal("a fresh lab has a dead cable")
	}
	carrier := func(node, dev string) string {
		out, err := l.Run(t.Context(), node, "cat", "/sys/class/net/"+dev+"/carrier")
		if err != nil {
			return "down"
		}
		return strings.TrimSpace(out)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(l.Cut("alpha", Crossover))
	if reaches(t, l, "alpha", "beta", Crossover) || carrier("beta", "eth1") != "0" {
		t.Error("the crossover is cut but carries")
	}
	check(l.Cut("beta", LAN))
	if reaches(t, l, Client, "beta", LAN) || carrier("beta", "eth0") != "0" {
		t.Error("the LAN cable is cut but carries")
	}
	check(l.Heal("beta", LAN))
	check(l.Heal("alpha", Crossover))
	if !await(t.Context(), 5*time.Second, func() bool {
		return reaches(t, l, Client, "beta", LAN) && reaches(t, l, "beta", "alpha", Crossover)
	}) {
		t.Error("a healed cable carries nothing")
	}
	check(l.Ail("alpha", Crossover, Deaf))
	check(l.Ail("beta", LAN, Narrow))
	if reaches(t, l, "alpha", "beta", Crossover) || carrier("alpha", "eth1") != "1" {
		t.Error("a deaf node heard an answer, or has no carrier")
	}
	large := func() bool {
		_, err := l.Run(t.Context(), "alpha", "ping", "-c1", "-W1", "-s1200", l.Address("beta", LAN))
		return err == nil
	}
	if !reaches(t, l, "alpha", "beta", LAN) || large() {
		t.Error("a narrow cable carries no small frame, or a large one")
	}
	check(l.Heal("alpha", Crossover))
	check(l.Heal("beta", LAN))
	if !reaches(t, l, "alpha", "beta", Crossover) || !large() {
		t.Error("a cable whose ills are mended carries nothing")
	}
	if err := l.Cut("gamma", Crossover); err == nil {
		t.Error("cut a cable that does not exist")
	}
	if err := l.Cut("alpha", "sky"); err == nil {
		t.Error("cut an unknown path")
	}
}

func TestPower(t *testing.T) {
	l := newLab(t, nil)
	ctx := t.Context()
	// Something that would say goodbye if it could, and a loop device.
	run(t, l, "alpha", "sh", "-c", "losetup -f /disks/volume.img")
	left := exec.Command("/bin/sleep", "1000")
	if err := l.Enter("alpha", left); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	if err := l.PowerOff("alpha"); err != nil {
		t.Fatal(err)
	}
	var how *exec.ExitError
	if err := <-ended; !errors.As(err, &how) || how.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("a process of a dead node ended by %v", err)
	}
	if got, err := l.Run(ctx, "beta", "cat", "/sys/class/net/eth1/carrier"); err != nil || strings.TrimSpace(got) != "0" {
		t.Errorf("beta's carrier: %q %v", got, err)
	}
	if reaches(t, l, "beta", "alpha", Crossover) || reaches(t, l, "gamma", "alpha", LAN) {
		t.Error("a dead node answers")
	}
	if _, err := l.Run(ctx, "alpha", "true"); err == nil {
		t.Error("a command ran on a dead node")
	}
	if err := l.PowerOff("alpha"); err == nil {
		t.Error("switched off twice")
	}
	if err := l.PowerOn("alpha"); err != nil {
		t.Fatal(err)
	}
	if err := l.AwaitAPI(ctx, "alpha"); err != nil {
		t.Fatal(err)
	}
	if !await(ctx, 5*time.Second, func() bool { return reaches(t, l, "beta", "alpha", Crossover) }) {
		t.Error("a node that is on again is not reached")
	}
}

func TestAgent(t *testing.T) {
	l := newLab(t, nil)
	ctx := t.Context()
	s, err := l.Status(ctx, "beta")
	if err != nil || s.Node != "beta" {
		t.Fatalf("status of beta: %+v, %v", s, err)
	}
	events, err := l.Events(ctx, "beta", 0)
	if err != nil || len(events) != 2 || events[1].Seq != 2 || events[0].Text != "since 0" {
		t.Errorf("events: %+v, %v", events, err)
	}
	if err := l.Verb(ctx, "beta", apiv1.VerbPromote, apiv1.PromoteRequest{}, nil); !errors.Is(err, apiv1.ErrRefused) {
		t.Errorf("a refusal came as %v", err)
	}
	if err := l.Pause("beta"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := l.Status(short, "beta"); err == nil {
		t.Error("a paused agent answers")
	}
	if err := l.Resume("beta"); err != nil {
		t.Fatal(err)
	}
	if err := l.AwaitAPI(ctx, "beta"); err != nil {
		t.Error(err)
	}
	if err := l.Start("beta"); err == nil {
		t.Error("started twice")
	}
	if err := l.Kill("beta"); err != nil {
		t.Fatal(err)
	}
	if l.AgentRuns("beta") {
		t.Error("a killed agent runs")
	}
	if err := l.Start("beta"); err != nil {
		t.Fatal(err)
	}
	if err := l.AwaitAPI(ctx, "beta"); err != nil {
		t.Error(err)
	}
	if err := l.Start(Client); err == nil {
		t.Error("the client has an agent")
	}
}

// Another process finds the lab by its files, also one that was never told of
// a node's first process.
func TestFound(t *testing.T) {
	l := newLab(t, nil)
	other, err := Open(l.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Status(t.Context(), "alpha"); err != nil {
		t.Error(err)
	}
	if _, err := Up(t.Context(), other.state.Options); err == nil {
		t.Error("a second lab in one directory")
	}
	for i := range other.state.Nodes {
		other.state.Nodes[i].Init = process{}
	}
	if err := other.Down(); err != nil {
		t.Fatal(err)
	}
	if leaks := l.Leaks(); len(leaks) > 0 {
		t.Errorf("left behind: %q", leaks)
	}
	if err := other.Down(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// Whoever tethered a lab dies without a word: its processes go too, and what
// is left is found by its files.
func TestTether(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces, mounts and loop devices")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "lab")
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "HAPAIR_LAB_TETHERED="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	word, err := bufio.NewReader(out).ReadString('\n')
	if err := errors.Join(err, cmd.Process.Kill()); err != nil || word != "up\n" {
		t.Fatalf("said %q, %v", word, err)
	}
	var how *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &how) {
		t.Fatalf("ended by %v", err)
	}
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !await(t.Context(), deathTimeout, func() bool { return len(l.strays()) == 0 }) {
		t.Errorf("processes live on: %v", l.strays())
	}
	if err := l.Down(); err != nil {
		t.Error(err)
	}
	if leaks := l.Leaks(); len(leaks) > 0 {
		t.Errorf("left behind: %q", leaks)
	}
}

// An agent that does not come up takes the lab with it, and says why.
func TestBrokenAgent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces, mounts and loop devices")
	}
	o := Options{Dir: filepath.Join(t.TempDir(), "lab"), Agent: []string{"/bin/ls"}, KeepMetadata: true, Size: 16 << 20, Tether: true}
	l, err := Up(t.Context(), o)
	if err == nil {
		t.Error(l.Down())
		t.Fatal("ls is no agent")
	}
	if !strings.Contains(err.Error(), "unrecognized option") {
		t.Errorf("the agent's own words are missing: %v", err)
	}
	if _, err := os.Stat(o.Dir); err == nil {
		t.Error("files are left behind")
	}
}

func TestOptions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, o := range map[string]Options{
		"one node":       {Nodes: []string{"alpha"}},
		"twins":          {Nodes: []string{"alpha", "alpha"}},
		"reserved":       {Nodes: []string{"alpha", Client}},
		"path":           {Nodes: []string{"alpha", "../beta"}},
		"tiny":           {Size: 4096},
		"odd":            {Size: 16<<20 + 512},
		"relative":       {Dir: "here"},
		"nobody decides": {Witness: "-", Arbitration: "witness"},
	} {
		if _, err := Up(t.Context(), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
