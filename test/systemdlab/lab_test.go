package systemdlab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hapair/agent/apiv1"
)

const (
	root     = "../.."
	patience = 60 * time.Second // only ends what hangs
	volume   = 64 << 20
	service  = "192.168.1.50"
)

const configText = `cluster: systemdlab
nodes:
  alpha: {addresses: {crossover: 10.99.0.1, lan: 192.168.1.11}}
  beta: {addresses: {crossover: 10.99.0.2, lan: 192.168.1.12}}
witness: {name: gamma, address: 192.168.1.13}
arbitration: witness
security: {mode: psk, psk_file: /etc/hapair/cluster.psk, gossip_key_file: /etc/hapair/gossip.key}
resources:
  pg:
    volumes: [{disk: /disks/volume.img, metadata: /disks/metadata.img}]
    services:
      - mount: {path: /srv/pg, type: ext4}
      - systemd: records.service
      - systemd: beside.service
      - address: {ip: 192.168.1.50/24, dev: eth0}
`

// Units of the machines: one that keeps records, and one that takes its time to
// stop and needs the other until it has.
var units = map[string]string{
	"lab.target":      "[Unit]\nRequires=basic.target multi-user.target\nAllowIsolate=yes\n",
	"records.service": "[Service]\nType=exec\nExecStart=/usr/local/bin/halab recordd serve\n",
	"beside.service":  "[Service]\nType=exec\nExecStart=/bin/sleep infinity\nExecStop=/bin/sleep 2\nExecStop=/bin/systemctl is-active records.service\n",
	// Faults are found sooner than where it counts.
	"hapair.service.d/lab.conf": "[Service]\nWatchdogSec=4s\nTimeoutAbortSec=2s\n",
}

// lab is the machines and what is between them.
type lab struct {
	t     *testing.T
	ctx   context.Context
	dir   string
	netns string // of the LAN's switch and the client
	boxes map[string]*box
}

// box is one machine.
type box struct {
	*lab
	name  string
	index int
	cmd   *exec.Cmd // of boot.sh, whose child is process 1
	pid   int       // of process 1; 0 while it is off
	ended chan struct{}
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Getenv("HAPAIR_SYSTEMD") == "" {
		t.Skip("make systemd-lab")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	l := &lab{t: t, ctx: ctx, dir: t.TempDir(), netns: fmt.Sprintf("systemdlab-%d", os.Getpid()), boxes: map[string]*box{}}
	t.Cleanup(func() {
		l.down()
		cancel()
	})
	l.sh("ip netns add " + l.netns)
	l.sh("ip -n " + l.netns + " link add lan type bridge")
	l.sh("ip -n " + l.netns + " addr add 192.168.1.1/24 dev lan && ip -n " + l.netns + " link set lan up && ip -n " + l.netns + " link set lo up")
	l.makeFiles()
	for i, name := range []string{"alpha", "beta", "gamma"} {
		l.boxes[name] = &box{lab: l, name: name, index: i + 1}
	}
	return l
}

// sh runs a line on this machine.
func (l *lab) sh(line string) string {
	l.t.Helper()
	out, err := exec.CommandContext(l.ctx, "/bin/bash", "-euo", "pipefail", "-c", line).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

func (l *lab) say(format string, args ...any) {
	l.t.Logf(time.Now().UTC().Format("15:04:05.000 ")+format, args...)
}

// makeFiles makes what the machines are booted with.
func (l *lab) makeFiles() {
	l.t.Helper()
	write := func(name, text string) {
		l.t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			l.t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			l.t.Fatal(err)
		}
	}
	l.sh(fmt.Sprintf("make -s -C %s install DESTDIR=%s/tree PREFIX=/usr", root, l.dir))
	l.sh(fmt.Sprintf("install -D %s/bin/halab %s/tree/usr/local/bin/halab", root, l.dir))
	system := l.dir + "/tree/etc/systemd/system/"
	for name, text := range units {
		write(system+name, text)
	}
	l.sh("ln -s lab.target " + system + "default.target; mkdir -p " + system + "multi-user.target.wants")
	l.sh(fmt.Sprintf("truncate -s %d %s/fs && mkfs.ext4 -q -E root_owner=0:0 %s/fs", volume, l.dir, l.dir))
	for _, name := range []string{"alpha", "beta", "gamma"} {
		dir := filepath.Join(l.dir, name)
		write(dir+"/keep/etc/hapair/hapair.yaml", configText)
		for key, digit := range map[string]string{"cluster.psk": "a", "gossip.key": "b"} {
			write(dir+"/keep/etc/hapair/"+key, strings.Repeat(digit, 64)+"\n")
		}
		l.sh("chmod 600 " + dir + "/keep/etc/hapair/*")
		l.sh(fmt.Sprintf("mkdir -p %[1]s/keep/disks && cp --sparse=always %[2]s/fs %[1]s/keep/disks/volume.img && cp -a %[2]s/tree %[1]s/", dir, l.dir))
		l.sh("tr -d - </proc/sys/kernel/random/uuid >" + dir + "/machine-id")
	}
}

// boot switches a machine on, plugs its cables in, and returns when systemd has
// started what it starts. More are units that start with it.
func (b *box) boot(more ...string) {
	b.t.Helper()
	began := time.Now()
	wants := filepath.Join(b.dir, b.name, "tree/etc/systemd/system/multi-user.target.wants")
	for _, u := range more {
		b.sh(fmt.Sprintf("ln -sf /usr/lib/systemd/system/%s %s/", u, wants))
	}
	console, err := os.OpenFile(filepath.Join(b.dir, b.name, "console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer console.Close()
	b.cmd = exec.Command("./boot.sh", b.dir, b.name)
	b.cmd.Stdout, b.cmd.Stderr = console, console
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // its end is all there is to know
		close(ended)
	}(b.cmd, b.ended)
	b.await("systemd of "+b.name+" runs", func() bool { return b.findInit() })
	b.await("the bus of "+b.name, func() bool {
		return b.try("systemctl", "is-system-running", "--quiet") == nil || b.output("systemctl", "is-active", "dbus.service") == "active"
	})
	b.plug()
	b.await(b.name+" is up", func() bool { return b.output("systemctl", "is-system-running") == "running" })
	b.say("%s is up after %v", b.name, time.Since(began).Round(time.Millisecond))
}

// findInit finds process 1.
func (b *box) findInit() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", b.cmd.Process.Pid))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return false
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.TrimSpace(string(name)) != "systemd" {
		return false
	}
	b.pid = pid
	return true
}

// plug gives it its cables. The agent may run already: it has no need to wait.
func (b *box) plug() {
	b.t.Helper()
	_ = exec.Command("ip", "-n", b.netns, "link", "del", fmt.Sprintf("port%d", b.index)).Run() // of its last life; it may have gone by itself
	b.sh(fmt.Sprintf("ip -n %s link add port%d type veth peer name eth0 netns %d && ip -n %s link set port%d master lan up", b.netns, b.index, b.pid, b.netns, b.index))
	b.must("ip", "link", "set", "lo", "up")
	b.must("ip", "addr", "add", fmt.Sprintf("192.168.1.%d/24", 10+b.index), "dev", "eth0")
	b.must("ip", "link", "set", "eth0", "up")
	if b.name == "gamma" {
		return
	}
	for _, other := range []string{"alpha", "beta"} {
		if o := b.boxes[other]; o != b && o.pid != 0 {
			_ = o.try("ip", "link", "del", "eth1") // likewise
			b.sh(fmt.Sprintf("nsenter -t %d -n ip link add eth1 type veth peer name eth1 netns %d", b.pid, o.pid))
			b.cross()
			o.cross()
		}
	}
}

func (b *box) cross() {
	b.must("ip", "addr", "add", fmt.Sprintf("10.99.0.%d/24", b.index), "dev", "eth1")
	b.must("ip", "link", "set", "eth1", "up")
}

// command is one inside the machine.
func (b *box) command(argv ...string) *exec.Cmd {
	return exec.CommandContext(b.ctx, "nsenter", append([]string{"-t", strconv.Itoa(b.pid), "-a", "--"}, argv...)...)
}

func (b *box) try(argv ...string) error {
	out, err := b.command(argv...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %q: %w: %s", b.name, argv, err, out)
	}
	return nil
}

func (b *box) must(argv ...string) {
	b.t.Helper()
	if err := b.try(argv...); err != nil {
		b.t.Fatal(err)
	}
}

// output is what a command prints, whatever its end.
func (b *box) output(argv ...string) string {
	out, _ := b.command(argv...).Output() // what it prints is the answer
	return strings.TrimSpace(string(out))
}

// property is one of a unit.
func (b *box) property(unit, name string) string {
	return b.output("systemctl", "show", "--property="+name, "--value", unit)
}

func (l *lab) await(what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// words are the ends of the consoles and journals.
func (l *lab) words() string {
	var all strings.Builder
	for _, b := range l.boxes {
		text, _ := os.ReadFile(filepath.Join(l.dir, b.name, "console")) // there may be none
		lines := bytes.Split(text, []byte("\n"))
		fmt.Fprintf(&all, "\n== console of %s\n%s", b.name, bytes.Join(lines[max(0, len(lines)-20):], []byte("\n")))
		journal := b.journal("")
		fmt.Fprintf(&all, "\n== journal of %s\n%s", b.name, strings.Join(journal[max(0, len(journal)-60):], "\n"))
	}
	return all.String()
}

// journal is what a machine has logged since an instant, "" for ever, also while it
// is off.
func (b *box) journal(since string) []string {
	args := []string{"-D", filepath.Join(b.dir, b.name, "keep/var/log/journal"), "-o", "short-unix", "--no-pager", "-q"}
	if since != "" {
		args = append(args, "--since", since)
	}
	out, _ := exec.Command("journalctl", args...).Output() // none is an empty one
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// status is what the agent says.
func (b *box) status() (s apiv1.Status, ok bool) {
	if b.pid == 0 {
		return s, false
	}
	out, err := b.command("hactl", "status", "-o", "json").Output()
	return s, err == nil && json.Unmarshal(out, &s) == nil
}

// primary is who serves, nil while nobody does with all services.
func (l *lab) primary() *box {
	for _, name := range []string{"alpha", "beta"} {
		s, ok := l.boxes[name].status()
		if !ok || len(s.Resources) != 1 || s.Resources[0].Role != "Primary" {
			continue
		}
		if !slices.ContainsFunc(s.Resources[0].Services, func(x apiv1.Service) bool { return x.State != "running" }) {
			return l.boxes[name]
		}
	}
	return nil
}

func (l *lab) awaitPrimary(want *box) {
	l.t.Helper()
	l.await(want.name+" serves", func() bool { return l.primary() == want })
}

func (l *lab) other(b *box) *box {
	if b.name == "alpha" {
		return l.boxes["beta"]
	}
	return l.boxes["alpha"]
}

// awaitWell waits until both copies are current.
func (l *lab) awaitWell(primary *box) {
	l.t.Helper()
	l.await("both copies are current", func() bool {
		s, ok := primary.status()
		return ok && len(s.Resources) == 1 && len(s.Resources[0].InSync) == 2 && len(s.Resources[0].Peers) == 1 &&
			slices.ContainsFunc(s.Resources[0].Peers, func(p apiv1.Peer) bool { return p.Replication == "Established" })
	})
}

// off waits until a machine is off.
func (b *box) off() {
	b.t.Helper()
	select {
	case <-b.ended:
		b.pid, b.cmd = 0, nil
		b.dropGroup()
	case <-time.After(patience):
		b.t.Fatalf("%s does not go down", b.name)
	}
}

// dropGroup removes the cgroup, which is empty.
func (b *box) dropGroup() {
	name := filepath.Join(b.dir, b.name, "cgroup")
	group, err := os.ReadFile(name)
	if err != nil {
		return // it was never booted
	}
	b.await("the cgroup of "+b.name+" is empty", func() bool { // processes that were killed are dying
		return exec.Command("find", strings.TrimSpace(string(group)), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run() == nil &&
			exec.Command("test", "!", "-e", strings.TrimSpace(string(group))).Run() == nil
	})
	if err := os.Remove(name); err != nil {
		b.t.Error(err)
	}
}

// down ends everything, and sees that nothing is left.
func (l *lab) down() {
	if l.t.Failed() {
		l.t.Log(l.words())
	}
	for _, b := range l.boxes {
		if b.cmd == nil {
			continue
		}
		_ = syscall.Kill(b.cmd.Process.Pid, syscall.SIGKILL) // and with it process 1 and all others; it may be gone
		<-b.ended
		b.pid = 0
		b.dropGroup()
	}
	if out, err := exec.Command("ip", "netns", "del", l.netns).CombinedOutput(); err != nil {
		l.t.Errorf("%v: %s", err, out)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || bytes.Contains(mounts, []byte(l.dir)) {
		l.t.Errorf("mounts are left: %v\n%s", err, mounts)
	}
}
