// Package vm puts a pair, its witness and a client into four small virtual machines:
// a Debian kernel under QEMU, which translates every instruction (no KVM), an
// initramfs of our own programs and busybox, disks as files, networks as hubs in
// this process. A power cut is a killed QEMU. Scenarios (package script) are
// played on it as they are in namespaces and in the simulator.
//
//  1. lab.go        the machines and their files
//  2. machine.go    one of them: QEMU, its power, its monitor
//  3. ask.go        what its guest is asked
//  4. disk.go       a disk, and its volatile cache
//  5. clock.go      the time of a machine
//  6. hub.go        a network
//  7. initramfs.go  what a machine boots
//  8. pair.go       the pair for package play; records.go its client and its judge
//  9. outlets.go    what the nodes fence each other by
//  10. config.go    what the agents are told
//  11. guest/       process 1 of a machine; spec/ what it is told
//
// It needs qemu-system-x86_64, mkfs.ext4, a static busybox and an unpacked Debian
// kernel package (make vm-lab fetches it), and no privileges.
package vm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"hapair/mirror/store"
	"hapair/test/fault"
	"hapair/test/lab"
	"hapair/test/script"
	"hapair/test/vm/spec"
)

// Sizes of disks in bytes, and of memories in MiB.
const (
	volumeBytes   = 64 << 20
	metadataBytes = 8 << 20
	stateBytes    = 64 << 20
	sharedBytes   = 1 << 20

	dataMemory  = 512
	otherMemory = 320
)

// controlMAC is of the card that the lab talks to a guest over; machines do not see
// each other's.
const controlMAC = "52:54:00:00:00:ff"

// slow is how many times slower than others these machines are taken to be.
const slow = 10

// resource is what the pair replicates.
const resource = "pg"

// Options say where things are, and what disks are like.
type Options struct {
	Dir     string  // of the lab, removed with it
	Kernel  string  // an unpacked kernel package: boot/vmlinuz-*, lib/modules
	Bin     string  // haagent, hactl, halab, vmguest
	Busybox string  // static
	Early   float64 // the chance of a write to reach the medium of a disk before it is flushed, in [0, 1]
	Liars   bool    // disks answer flushes and do nothing
	// Watchdog is the time-out of the kernel's watchdog (softdog) on data nodes; 0: none.
	Watchdog time.Duration
	// Pills has the data nodes fence each other by pills on a disk that they share;
	// there is no witness then. It takes a Watchdog.
	Pills bool
	// Outlets has the data nodes fence each other by a fence agent, which reaches outlets
	// of this process; there is no witness then.
	Outlets bool
	// Modules are of the kernel, beside what all machines need; Programs are more of
	// those, as files here by their names below /bin.
	Modules  []string
	Programs map[string]string
	Say      func(format string, args ...any)
}

// Lab is the machines: four, or three where there is no witness.
type Lab struct {
	Options
	machines map[string]*machine
	shared   *store.File // that pills are on; nil: none
	hubs     map[string]*hub
	outlets  *outlets   // that data nodes fence each other by; nil: none
	mu       sync.Mutex // guards cut, and is held while cards are told what they see
	cut      map[[2]string]bool
	next     uint64 // first number of the next writer
}

var starts = make(chan func())

func init() {
	go func() { // as long as the program
		runtime.LockOSThread()
		for fn := range starts {
			fn()
		}
	}()
}

// Up boots the machines and starts the agents.
func Up(ctx context.Context, o Options) (*Lab, error) {
	l, err := build(o, append(o.nodes(), lab.Client)...)
	if err == nil {
		err = l.boot(ctx)
	}
	if err == nil {
		err = l.found(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("vm lab: %w", err), l.Down())
	}
	return l, nil
}

// nodes are those with an agent.
func (o *Options) nodes() []string {
	if o.fencing() {
		return []string{script.Alpha, script.Beta}
	}
	return []string{script.Alpha, script.Beta, script.Gamma}
}

// fencing reports whether it is what arbitrates.
func (o *Options) fencing() bool { return o.Pills || o.Outlets }

// build makes machines that are off. What it returns is taken down even if there is
// an error.
func build(o Options, names ...string) (l *Lab, err error) {
	l = &Lab{Options: o, machines: map[string]*machine{}, hubs: map[string]*hub{}, cut: map[[2]string]bool{}, next: 1}
	for _, path := range []string{script.LAN, script.Crossover} {
		if l.hubs[path], err = newHub(filepath.Join(l.Dir, path)); err != nil {
			return l, err
		}
	}
	if l.Pills {
		if err := l.share(); err != nil {
			return l, err
		}
	}
	if l.Outlets {
		if l.outlets, err = serveOutlets(l); err != nil {
			return l, err
		}
	}
	key := make([]byte, 64)
	if _, err := rand.Read(key); err != nil {
		return l, err
	}
	for i, name := range names {
		l.machines[name], err = l.make(i+1, name, hex.EncodeToString(key))
		if err != nil {
			return l, fmt.Errorf("%s: %w", name, err)
		}
	}
	return l, nil
}

// boot switches everything on.
func (l *Lab) boot(ctx context.Context) error {
	all := make(chan error)
	for _, m := range l.machines {
		go func() { all <- m.powerOn(ctx) }()
	}
	var err error
	for range l.machines {
		err = errors.Join(err, <-all)
	}
	return err
}

// share makes the disk that both data nodes see.
func (l *Lab) share() (err error) {
	if err = makeFile(l.sharedFile(), sharedBytes, false); err == nil {
		l.shared, err = store.Open(l.sharedFile(), store.Options{})
	}
	return err
}

func (l *Lab) sharedFile() string { return filepath.Join(l.Dir, "shared") }

// found makes the two disks a pair, and starts the agents.
func (l *Lab) found(ctx context.Context) error {
	if l.Pills {
		if _, err := l.machines[script.Alpha].run(ctx, "/bin/hactl", "create-sbd"); err != nil {
			return err
		}
	}
	for _, name := range []string{script.Alpha, script.Beta} {
		if _, err := l.machines[name].run(ctx, "/bin/hactl", "create-metadata", resource, "--assume-clean"); err != nil {
			return err
		}
	}
	for _, name := range l.nodes() {
		if err := l.machines[name].do(ctx, "/agent/start", nil); err != nil {
			return err
		}
	}
	return nil
}

// lanAddresses are those of lab.Lab.
var lanAddresses = map[string]string{script.Alpha: "192.168.1.11", script.Beta: "192.168.1.12", script.Gamma: "192.168.1.13", lab.Client: "192.168.1.100"}

// make makes the files of a machine.
func (l *Lab) make(index int, name, key string) (*machine, error) {
	m := &machine{name: name, dir: filepath.Join(l.Dir, name), memory: otherMemory}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return nil, err
	}
	kernel, err := filepath.Glob(filepath.Join(l.Kernel, "boot", "vmlinuz-*"))
	if err != nil {
		return nil, err
	}
	if len(kernel) != 1 {
		return nil, fmt.Errorf("kernels below %s/boot: %v: want one (make vm-lab fetches it)", l.Kernel, kernel)
	}
	m.kernel = kernel[0]
	g := spec.Guest{Name: name, Addresses: map[string]string{controlMAC: "10.0.2.15/24"}, Agent: []string{"/bin/haagent", "--config", lab.ConfigFile},
		Env: []string{"PATH=/bin", "HOME=/root"}}
	m.plugInto(&g, index, l.hubs[script.LAN], script.LAN, lanAddresses[name])
	switch name {
	case script.Alpha, script.Beta:
		m.memory, m.reaches = dataMemory, l.Outlets
		m.plugInto(&g, index, l.hubs[script.Crossover], script.Crossover, fmt.Sprintf("10.99.0.%d", index))
		g.State = "/dev/vdc"
		volume := makeFile // both copies are equal: nothing is to be synced
		if name == script.Beta {
			volume = func(file string, _ int64, _ bool) error {
				return copyFile(filepath.Join(l.Dir, script.Alpha, "volume"), file)
			}
		}
		err = errors.Join(l.disk(m, volume, "volume", volumeBytes, true), l.disk(m, makeFile, "metadata", metadataBytes, false),
			l.disk(m, makeFile, "state", stateBytes, true))
		if l.shared != nil {
			m.disks = append(m.disks, openShared(l.sharedFile(), filepath.Join(m.dir, "shared.nbd"), l.shared))
		}
	case script.Gamma:
		g.State, g.Agent = "/dev/vda", append(g.Agent, "--witness")
		err = l.disk(m, makeFile, "state", stateBytes, true)
	}
	return m, errors.Join(err, m.choosePort(), l.pack(m, g, key))
}

func (m *machine) plugInto(g *spec.Guest, index int, h *hub, path, address string) {
	segment := map[string]int{script.LAN: 1, script.Crossover: 2}[path]
	n := card{h, path, fmt.Sprintf("52:54:00:00:%02x:%02x", segment, index)}
	m.cards = append(m.cards, n)
	g.Addresses[n.mac] = address + "/24"
}

// disk gives the machine one more disk, in a file that is made first.
func (l *Lab) disk(m *machine, makes func(file string, size int64, ext4 bool) error, name string, size int64, ext4 bool) error {
	file := filepath.Join(m.dir, name)
	if err := makes(file, size, ext4); err != nil {
		return err
	}
	d, err := openDisk(file, file+".nbd", fault.CacheOptions{Seed: uint64(time.Now().UnixNano()), Early: l.Early}, l.Liars)
	if err == nil {
		m.disks = append(m.disks, d)
	}
	return err
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// pack makes what a machine boots.
func (l *Lab) pack(m *machine, g spec.Guest, key string) error {
	found, err := moduleFiles(filepath.Join(l.Kernel, "lib", "modules"), l.modules()...)
	if err != nil {
		return err
	}
	files := map[string]string{"init": filepath.Join(l.Bin, "vmguest"), "bin/busybox": l.Busybox}
	for _, f := range found {
		files["lib/modules/"+filepath.Base(f)] = f
		g.Modules = append(g.Modules, filepath.Base(f))
	}
	programs := []string{"haagent", "hactl", "halab"}
	switch m.name { // what is unpacked takes a slow machine time
	case script.Gamma:
		programs = programs[:1]
	case lab.Client:
		programs = programs[2:]
	}
	for _, name := range programs {
		files["bin/"+name] = filepath.Join(l.Bin, name)
	}
	for name, file := range l.Programs {
		files["bin/"+name] = file
	}
	told, err := json.Marshal(g)
	if err != nil {
		return err
	}
	texts := map[string]string{strings.TrimPrefix(spec.File, "/"): string(told), strings.TrimPrefix(lab.ConfigFile, "/"): l.configuration(),
		"etc/hapair/cluster.psk": key[:64] + "\n", "etc/hapair/gossip.key": key[64:] + "\n", "etc/machine-id": fmt.Sprintf("%x\n", fmt.Sprintf("%-16s", m.name)),
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}
	links := map[string]string{}
	if m.reaches {
		texts[strings.TrimPrefix(outletsFile, "/")] = l.outlets.password + "\n"
		links[strings.TrimPrefix(fenceProgram, "/")] = "halab"
	}
	for _, word := range []string{"sh", "sync", "cat", "dd", "cmp"} {
		links["bin/"+word] = "busybox"
	}
	image, err := pack(files, texts, links)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.dir, "initramfs"), image, 0o600)
}

// Down ends everything and removes the lab's directory.
func (l *Lab) Down() error {
	var errs []error
	if l.outlets != nil { // before the machines: nobody else switches any of them then
		errs = append(errs, l.outlets.close())
	}
	for _, m := range l.machines {
		if m != nil {
			errs = append(errs, m.scrap())
		}
	}
	if l.shared != nil {
		errs = append(errs, l.shared.Close())
	}
	for _, h := range l.hubs {
		if h != nil {
			errs = append(errs, h.close())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(l.Dir))...)
}
