package lab

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Ill is what a cable that is plugged in may still do wrong. Neither end notices:
// the carrier is there.
type Ill string

// The ills. Each is of what arrives at a node: what it sends goes out.
const (
	// Deaf: nothing arrives.
	Deaf Ill = "deaf"
	// Narrow: what is longer than narrowBytes does not arrive, as behind a switch
	// that was set to another frame size.
	Narrow Ill = "narrow"

	narrowBytes = 1000
)

// Ail gives a node's end of a path an ill, until Heal. It goes with the cable, not
// with the node: a power cut does not mend it.
func (l *Lab) Ail(name, path string, ill Ill) error {
	if !slices.Contains([]Ill{Deaf, Narrow}, ill) {
		return fmt.Errorf("lab: no ill %q; there are %s and %s", ill, Deaf, Narrow)
	}
	return l.setIll(name, path, ill)
}

// setIll has the node's device drop what the ill says; "" ends that.
func (l *Lab) setIll(name, path string, ill Ill) error {
	n, dev, err := l.cableEnd(name, path)
	if err != nil {
		return err
	}
	if n.Ill[path] == ill {
		return nil
	}
	ns := l.nsName(name)
	if n.Init.PID == 0 { // the cables wait beside the bridge
		ns, dev = l.nsName(LAN), parkName(n, dev)
	}
	if err := onOwnThread(func() error { return dropAt(ns, dev, ill) }); err != nil {
		return fmt.Errorf("lab: %s of %s: %w", path, name, err)
	}
	if n.Ill == nil {
		n.Ill = map[string]Ill{}
	}
	n.Ill[path] = ill
	l.log("link %s of %s: %q", path, name, ill)
	return l.save()
}

// dropAt runs on a thread of its own, which it leaves in the namespace.
func dropAt(namespace, dev string, ill Ill) error {
	ns, err := netns.GetFromName(namespace)
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // only a handle
	if err := netns.Set(ns); err != nil {
		return err
	}
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("device %s: %w", dev, err)
	}
	const none = -1
	if ill == "" {
		return netlink.LinkSetXdpFdWithFlags(link, none, unix.XDP_FLAGS_SKB_MODE)
	}
	fd, err := loadFilter(ill)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // the device holds the program
	return netlink.LinkSetXdpFdWithFlags(link, fd, unix.XDP_FLAGS_SKB_MODE)
}

// instruction is one of the kernel's eBPF.
type instruction struct {
	code      uint8
	registers uint8 // destination, and source in the upper half
	offset    int16
	value     int32
}

// What the filters are written in.
const (
	move, exit              = 0xb7, 0x95 // r = value; return r0
	load32                  = 0x61       // r = *(u32 *)(source + offset)
	add                     = 0x07       // r += value
	jumpIfGreater           = 0x2d       // if r > source, skip offset instructions
	dropFrame, passFrame    = 1, 2       // XDP_DROP, XDP_PASS
	frameBegin, frameEnd    = 0, 4       // in struct xdp_md, which r1 points to
	programLoad, programXDP = 5, 6       // BPF_PROG_LOAD, BPF_PROG_TYPE_XDP
)

func filterOf(ill Ill) []instruction {
	drop := []instruction{{code: move, value: dropFrame}, {code: exit}}
	if ill == Deaf {
		return drop
	}
	return slices.Concat([]instruction{
		{code: load32, registers: 2 | 1<<4, offset: frameEnd},
		{code: load32, registers: 3 | 1<<4, offset: frameBegin},
		{code: add, registers: 3, value: narrowBytes},
		{code: jumpIfGreater, registers: 3 | 2<<4, offset: 2},
	}, drop, []instruction{{code: move, value: passFrame}, {code: exit}})
}

// loadFilter hands a program to the kernel and returns its descriptor.
func loadFilter(ill Ill) (int, error) {
	program, license, log := filterOf(ill), []byte("GPL\x00"), make([]byte, 4096)
	var pinned runtime.Pinner // what attr points to, as numbers
	defer pinned.Unpin()
	pinned.Pin(&program[0])
	pinned.Pin(&license[0])
	pinned.Pin(&log[0])
	attr := struct { // the beginning of union bpf_attr
		kind, length  uint32
		program, word uint64
		level, size   uint32
		log           uint64
		_             [64]byte
	}{kind: programXDP, length: uint32(len(program)), program: uint64(uintptr(unsafe.Pointer(&program[0]))),
		word: uint64(uintptr(unsafe.Pointer(&license[0]))), level: 1, size: uint32(len(log)), log: uint64(uintptr(unsafe.Pointer(&log[0])))}
	fd, _, e := unix.Syscall(unix.SYS_BPF, programLoad, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if e != 0 {
		return 0, errors.Join(fmt.Errorf("load a filter: %w", e), errors.New(unix.ByteSliceToString(log)))
	}
	return int(fd), nil
}
