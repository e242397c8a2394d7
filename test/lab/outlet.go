package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A node's outlet is what a fence device switches: a FIFO in the node's
// directory, which process 1 listens to, and a file that says on or off. Every
// node sees the directories of the others, so that one can switch the other off;
// to switch it on takes the lab itself.
const (
	outletFile = "outlet"
	powerFile  = "power"
	powerOn    = "on"
	powerOff   = "off" // nothing of the node runs any more
)

// openOutlet makes the node's outlet and says that the node is on. Process 1
// calls it before it says that it is up.
func openOutlet(dir string) (*os.File, error) {
	file := filepath.Join(dir, outletFile)
	if err := unix.Mkfifo(file, 0o600); err != nil && err != unix.EEXIST {
		return nil, fmt.Errorf("make %s: %w", file, err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0) // writing too: it never ends for lack of a writer
	if err != nil {
		return nil, err
	}
	return f, setPower(dir, powerOn)
}

// listen switches the node off when it is told to: its links go dark, then every
// process dies, and when none is left that is written down.
func listen(dir string, outlet *os.File) {
	var b [64]byte
	if _, err := outlet.Read(b[:]); err != nil {
		fmt.Fprintln(os.Stderr, "node-init: outlet:", err)
		return
	}
	endHere(dir)
}

// endHere is the end of this node, in the order that listen says.
func endHere(dir string) {
	if err := darkenHere(); err != nil {
		fmt.Fprintln(os.Stderr, "node-init: outlet:", err)
	}
	for {
		_ = syscall.Kill(-1, syscall.SIGKILL) // fails only when nobody is left
		if !othersRun() {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := setPower(dir, powerOff); err != nil {
		fmt.Fprintln(os.Stderr, "node-init: outlet:", err)
	}
	os.Exit(0)
}

// darkenHere takes all links down but the loop-back.
func darkenHere() error {
	links, err := netlink.LinkList()
	var errs []error
	for _, link := range links {
		if link.Attrs().Name != "lo" {
			errs = append(errs, netlink.LinkSetDown(link))
		}
	}
	return errors.Join(append(errs, err)...)
}

// othersRun reports whether a process beside process 1 can still do anything. A
// process that hangs in the kernel can.
func othersRun() bool {
	run := false
	eachProcess(func(pid int) {
		p, err := identify(pid)
		run = run || pid != 1 && err == nil && p.alive()
	})
	return run
}

// noteOff says that a node is off, which the lab itself has switched off.
func (l *Lab) noteOff(node string) error {
	err := setPower(filepath.Join(l.dir, node), powerOff)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was never made
	}
	return err
}

func setPower(dir, word string) error {
	file := filepath.Join(dir, powerFile)
	if err := os.WriteFile(file+".new", []byte(word+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// powerOf returns on or off, or an error where nobody knows.
func powerOf(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, powerFile))
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(string(text)) == powerOff {
		return powerOff, nil
	}
	outlet, err := openSwitch(dir)
	if err != nil {
		return "", fmt.Errorf("it was on, and its process 1 is gone: %w", err)
	}
	return powerOn, outlet.Close()
}

// openSwitch opens the outlet for whoever switches it. It fails when process 1 is gone.
func openSwitch(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, outletFile), os.O_WRONLY|syscall.O_NONBLOCK, 0)
}

// switchOff tells the outlet, and waits until the node is off.
func switchOff(ctx context.Context, dir string, within time.Duration) error {
	isOff := func() bool {
		power, err := powerOf(dir)
		return err == nil && power == powerOff
	}
	if isOff() {
		return nil
	}
	outlet, err := openSwitch(dir)
	if err == nil {
		_, err = outlet.WriteString(powerOff + "\n")
		err = errors.Join(err, outlet.Close())
	}
	if await(ctx, within, isOff) { // also when another switched it off just now
		return nil
	}
	return errors.Join(fmt.Errorf("not off within %s", within), err)
}

// insideNode reports whether this process runs in a node.
func insideNode() bool {
	text, err := os.ReadFile("/proc/1/cmdline")
	return err == nil && strings.HasPrefix(string(text), initName+"\x00")
}

// FenceName is what a program is called when it is to be the lab's fence agent.
const FenceName = "fence_halab"

// FenceProgram is the lab's fence agent, as the nodes see it.
func (l *Lab) FenceProgram() string { return filepath.Join(l.dir, FenceName) }

// FenceOptions are what it is to be given to switch a node.
func (l *Lab) FenceOptions(node string) map[string]string {
	return map[string]string{"dir": l.dir, "plug": node}
}

// linkSelf makes the running program what Reexec takes one of that name for.
func linkSelf(name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Symlink(self, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// seconds reads a time as fence agents are given it.
func seconds(text string) (time.Duration, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	return time.Duration(n) * time.Second, err
}
