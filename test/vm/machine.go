package vm

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
	"sync"
	"syscall"
	"time"
)

// bootTimeout is how long a machine may take to answer: QEMU translates every
// instruction.
const bootTimeout = 2 * time.Minute

// commandLine is the kernel's, but for its clock.
const commandLine = "console=ttyS0 quiet panic=1 mitigations=off no_timer_check "

// offTimeout is how long a disk may take for what a dead machine asked it last.
const offTimeout = 10 * time.Second

// machine is one virtual machine.
type machine struct {
	name    string
	dir     string
	kernel  string
	memory  int     // MiB
	disks   []*disk // vda, vdb, ...
	cards   []card  // in the order of their slots
	control string  // address of the guest's HTTP on this machine
	reaches bool    // the guest reaches this machine's loopback, as outletsHost

	// turn is the right to switch the machine and to pull its cables. It guards what
	// follows, but for the boot and what is written in it.
	turn    sync.Mutex
	qemu    *exec.Cmd  // nil while the power is off
	ended   chan error // of qemu; whoever takes its end puts it back
	lost    int64      // bytes that its disks had only cached when the power went, in all
	monitor *json.Decoder
	command net.Conn
}

// card is a network card.
type card struct {
	hub  *hub
	name string // of the path
	mac  string
}

// powerOn boots the machine and waits until it answers.
func (m *machine) powerOn(ctx context.Context) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	return m.await(ctx)
}

// isOn reports whether anything of the machine runs.
func (m *machine) isOn() bool {
	m.turn.Lock()
	defer m.turn.Unlock()
	return m.runs()
}

// runs is isOn for who has the turn. One that was reset does not, before it is cleared away.
func (m *machine) runs() bool { return m.qemu != nil && len(m.ended) == 0 }

// begin starts QEMU, its disks before.
func (m *machine) begin(ctx context.Context) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.qemu != nil {
		return fmt.Errorf("%s is on already", m.name)
	}
	console, err := os.OpenFile(filepath.Join(m.dir, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer console.Close() //nolint:errcheck // qemu has its own copy
	c := exec.Command("qemu-system-x86_64", m.arguments()...)
	c.Stdout, c.Stderr = console, console
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	for _, old := range append(m.sockets(), m.monitorSocket()) {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for _, d := range m.disks {
		if err := d.powerOn(ctx); err != nil {
			return err
		}
	}
	if err := start(c); err != nil {
		return err
	}
	m.qemu, m.ended = c, make(chan error, 1)
	go func() { m.ended <- c.Wait() }()
	for _, n := range m.cards {
		n.hub.plug(m.name, true)
	}
	return nil
}

// start starts a process from a thread that lasts as long as this program: a
// parent's death signal is of the thread.
func start(c *exec.Cmd) error {
	answer := make(chan error)
	starts <- func() { answer <- c.Start() }
	return <-answer
}

func (m *machine) monitorSocket() string { return filepath.Join(m.dir, "qmp") }

func (m *machine) sockets() (all []string) {
	for _, n := range m.cards {
		all = append(all, n.hub.port(m.name))
	}
	return all
}

// choosePort finds, once, a free port on this machine for the guest's HTTP.
func (m *machine) choosePort() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	m.control = l.Addr().String()
	return l.Close()
}

func (m *machine) arguments() []string {
	a := []string{"-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", fmt.Sprint(m.memory), "-nodefaults", "-no-reboot", "-display", "none",
		"-serial", "stdio", "-qmp", "unix:" + m.monitorSocket() + ",server=on,wait=off",
		"-kernel", m.kernel, "-initrd", filepath.Join(m.dir, "initramfs"), "-append", commandLine + clockArguments()}
	for i, d := range m.disks {
		a = append(a, d.arguments(i)...)
	}
	for i, n := range m.cards {
		a = append(a, "-netdev", fmt.Sprintf("dgram,id=%s,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", n.name, n.hub.port(m.name), n.hub.port("hub")),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=%s,mac=%s,addr=%#x,romfile=", n.name, n.mac, 8+i))
	}
	restrict := map[bool]string{false: "on", true: "off"}[m.reaches]
	return append(a, "-netdev", "user,id=control,restrict="+restrict+",hostfwd=tcp:"+m.control+"-:80",
		"-device", "virtio-net-pci,netdev=control,mac="+controlMAC+",addr=0x10,romfile=")
}

// await waits until the guest answers, or QEMU ends.
func (m *machine) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		ask, done := context.WithTimeout(ctx, 2*time.Second)
		resp, err := m.request(ask, http.MethodGet, "/log", nil)
		if err == nil {
			err = resp.Body.Close()
		}
		done()
		if err == nil {
			return m.openMonitor()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not come up: %w", m.name, err)
		case err := <-m.ended:
			m.ended <- err
			return fmt.Errorf("the machine of %s ended while it booted: %v: %s", m.name, err, tail(filepath.Join(m.dir, "console.log")))
		case <-again.C:
		}
	}
}

// powerOff kills the machine: nothing in it is told, and its caches are gone. One that
// was reset is cleared away.
func (m *machine) powerOff() error {
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.qemu == nil {
		return fmt.Errorf("%s is off already", m.name)
	}
	for _, n := range m.cards { // dark first: a dying machine says nothing
		n.hub.plug(m.name, false)
	}
	err := m.qemu.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil // it ended by itself, which somebody has told
	}
	m.ended <- <-m.ended // it was killed
	m.qemu = nil
	err = errors.Join(err, m.disksOff())
	if m.command != nil {
		err = errors.Join(err, m.command.Close())
		m.command = nil
	}
	return err
}

// disksOff cuts the power of the disks.
func (m *machine) disksOff() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), offTimeout)
	defer cancel()
	for _, d := range m.disks {
		n, derr := d.powerOff(ctx)
		m.lost, err = m.lost+n, errors.Join(err, derr)
	}
	return err
}

// scrap takes the machine apart, on or off.
func (m *machine) scrap() (err error) {
	if m.qemu != nil {
		err = m.powerOff()
	}
	err = errors.Join(err, m.disksOff()) // if QEMU could not be started
	for _, d := range m.disks {
		err = errors.Join(err, d.close())
	}
	return err
}

// openMonitor speaks QMP to QEMU.
func (m *machine) openMonitor() error {
	m.turn.Lock()
	defer m.turn.Unlock()
	if !m.runs() {
		return fmt.Errorf("%s was switched off while it booted", m.name)
	}
	c, err := net.Dial("unix", m.monitorSocket())
	if err != nil {
		return err
	}
	m.command, m.monitor = c, json.NewDecoder(bufio.NewReader(c))
	return m.qmp("qmp_capabilities", nil)
}

// qmp runs one command of QEMU's monitor.
func (m *machine) qmp(name string, arguments map[string]any) error {
	q := map[string]any{"execute": name, "id": name}
	if arguments != nil {
		q["arguments"] = arguments
	}
	if err := json.NewEncoder(m.command).Encode(q); err != nil {
		return err
	}
	for { // events and the greeting come in between
		var answer struct {
			ID    string
			Error *struct{ Desc string }
		}
		if err := m.monitor.Decode(&answer); err != nil {
			return err
		}
		if answer.ID != name {
			continue
		}
		if answer.Error != nil {
			return fmt.Errorf("qemu: %s: %s", name, answer.Error.Desc)
		}
		return nil
	}
}

// cable pulls a cable out of the machine, or plugs it in: frames stop, and its card
// sees no carrier. A machine that is off sees nothing.
func (m *machine) cable(path string, in bool) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.command == nil { // what its cards are to see when it is up, carrier says
		return nil
	}
	for _, n := range m.cards {
		if n.name == path {
			n.hub.plug(m.name, in)
			return m.qmp("set_link", map[string]any{"name": path, "up": in})
		}
	}
	return fmt.Errorf("%s has no card on the %s", m.name, path)
}
