package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The controllers (BMCs) of the nodes, for fence_ipmilan: OpenIPMI's simulator, one for
// each data node, in the client. Its chassis is the lab's: chassis_halab, which runs
// there too and switches outlets. Power on is a button of the node, a FIFO, and whoever
// serves the controllers boots the node.
const (
	BMCUser = "ha"
	// BMCPasswordFile is the file of the password, on every node; IPMI wants one of 20
	// bytes at most.
	BMCPasswordFile = "/etc/hapair/bmc"

	bmcSimulator = "ipmi_sim"
	bmcPortBase  = 6230 // and the node's index
	bmcWithin    = 20 * time.Second
	chassisName  = "chassis_halab"
	buttonFile   = "button"
)

const bmcCommands = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
mc_enable 0x20
`

// bmcPort is where the controller of a node listens, at the client's address.
func (n *node) bmcPort() int { return bmcPortBase + n.Index }

// BMCPort is where the controller of a data node listens, at the client's address.
func (l *Lab) BMCPort(name string) int {
	n, err := l.node(name)
	if err != nil {
		return 0
	}
	return n.bmcPort()
}

// ServeBMCs runs the controllers of the data nodes until ctx ends or one of them does.
// on boots a node whose power on was asked for, one at a time; nil: as halab power on
// does. It runs outside of the nodes, and may run while others use the lab if on does
// not touch it.
func (l *Lab) ServeBMCs(ctx context.Context, on func(node string) error) error {
	if on == nil {
		on = func(node string) error { return fenceOn(l.dir, node) }
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	simulator, err := l.LookPath(bmcSimulator)
	if err != nil {
		return fmt.Errorf("lab: %w (Debian: openipmi)", err)
	}
	if err := linkSelf(filepath.Join(l.dir, chassisName)); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	ended := make(chan error, 2*len(l.Data()))
	running := 0
	for _, name := range l.Data() {
		for _, run := range []func() error{
			func() error { return l.runBMC(ctx, simulator, name) },
			func() error { return l.mindButton(ctx, name, on) },
		} {
			running++
			go func() { ended <- run() }()
		}
	}
	var errs []error
	for range running {
		errs = append(errs, <-ended)
		stop()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: controllers: %w", err)
	}
	return nil
}

// runBMC runs the controller of one node until ctx ends.
func (l *Lab) runBMC(ctx context.Context, simulator, name string) error {
	dir, err := l.writeBMC(name)
	if err != nil {
		return err
	}
	said := new(strings.Builder)
	cmd := exec.CommandContext(ctx, simulator, "-n", "-c", filepath.Join(dir, "lan.conf"), "-f", filepath.Join(dir, "commands"), "-s", dir)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = time.Second // a chassis_halab that it started may hold its output
	if err := l.Enter(Client, cmd); err != nil {
		return err
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s of %s ended: %w: %s", bmcSimulator, name, err, said)
}

// writeBMC writes the configuration of a node's controller into a directory, and makes
// the node's button.
func (l *Lab) writeBMC(name string) (dir string, err error) {
	client, err := l.node(Client)
	if err != nil {
		return "", err
	}
	home := filepath.Join(l.dir, name)
	secret, err := os.ReadFile(filepath.Join(home, "etc", filepath.Base(BMCPasswordFile)))
	if err != nil {
		return "", err
	}
	lan := fmt.Sprintf(`name %q
set_working_mc 0x20
startlan 1
  addr %s %d
  priv_limit admin
  allowed_auths_operator md5
  guid a123456789abcdefa123456789abcdef
endlan
chassis_control "%s %s"
user 2 true %q %q operator 10 md5
`, name, client.address(LAN), l.BMCPort(name), filepath.Join(l.dir, chassisName), name, BMCUser, strings.TrimSpace(string(secret)))
	dir = filepath.Join(home, "bmc")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	for file, text := range map[string]string{"lan.conf": lan, "commands": bmcCommands} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// mindButton boots a node whenever its button is pressed, until ctx ends.
func (l *Lab) mindButton(ctx context.Context, name string, on func(string) error) error {
	file := filepath.Join(l.dir, name, buttonFile)
	if err := unix.Mkfifo(file, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s: %w", file, err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0) // writing too: it never ends for lack of a writer
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { f.Close() }) //nolint:errcheck // only read from
	defer stop()
	presses := bufio.NewScanner(f)
	for presses.Scan() {
		if power, err := powerOf(filepath.Join(l.dir, name)); err == nil && power == powerOn {
			continue
		}
		if err := on(name); err != nil && ctx.Err() == nil {
			return fmt.Errorf("power on %s: %w", name, err)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s of %s: %w", buttonFile, name, presses.Err())
}

// chassis is the chassis of a node for its controller, which runs it as
// DIR/chassis_halab NODE get power, or set power 0 or 1.
func chassis(ctx context.Context, argv []string) (says string, err error) {
	if len(argv) < 4 {
		return "", fmt.Errorf("%q: want NODE get power, or NODE set power 0 or 1", argv)
	}
	l, err := Open(filepath.Dir(argv[0]))
	if err != nil {
		return "", err
	}
	if !slices.Contains(l.Data(), argv[1]) {
		return "", fmt.Errorf("no node %q; there are %q", argv[1], l.Data())
	}
	node := filepath.Join(l.dir, argv[1])
	switch strings.Join(argv[2:], " ") {
	case "get power":
		power, err := powerOf(node)
		return map[string]string{powerOn: "power:1", powerOff: "power:0"}[power], err
	case "set power 0":
		return "", switchOff(ctx, node, bmcWithin)
	case "set power 1":
		return "", press(ctx, node)
	}
	return "", fmt.Errorf("%q: not implemented", argv[2:])
}

// press presses a node's button, and waits until the node is on.
func press(ctx context.Context, dir string) error {
	button, err := os.OpenFile(filepath.Join(dir, buttonFile), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("nobody minds the button: %w", err)
	}
	_, err = button.WriteString(powerOn + "\n")
	if err := errors.Join(err, button.Close()); err != nil {
		return err
	}
	if !await(ctx, bmcWithin, func() bool { power, err := powerOf(dir); return err == nil && power == powerOn }) {
		return fmt.Errorf("not on within %s", bmcWithin)
	}
	return nil
}
