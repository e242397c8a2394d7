// Package lab puts a pair on one machine: two data nodes, a witness and a
// client, each with its own network, mounts, processes and host name, a
// crossover cable between the data nodes and a LAN for all. Power can be cut
// (every process of the node dies at once, its links go dark, what was not
// flushed is lost), cables pulled, agents paused.
//
//  1. lab.go      the lab, its options, Up and Down
//  2. store.go    the state file, so that separate commands find the lab
//  3. network.go  namespaces, cables, the bridge
//  4. boot.go     power on and off
//  5. init.go     what runs as process 1 of a node; root.go its file system
//  6. agent.go    start, kill and pause the agent
//  7. enter.go    run a command inside a node
//  8. api.go      talk to an agent
//  9. watchdog.go a node is switched off that does not pet its watchdog
//  10. leak.go     what a lab may leave behind: nothing
//
// A program that uses the package calls Reexec first thing in main or TestMain.
// It needs root. A Lab is not safe for concurrent use, but for Enter and what
// talks to agents.
package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The nodes beside the data nodes and the witness, and the paths.
const (
	Client    = "client"
	LAN       = "lan"
	Crossover = "crossover"
)

// The addresses of every lab; labs do not meet.
const (
	ServiceAddress = "192.168.1.50"
	prefixBits     = 24
)

// Options describe a lab. The zero value, given an agent, is a working pair
// with a witness.
type Options struct {
	Dir     string   // everything the lab keeps; default /tmp/halab
	Nodes   []string // the two data nodes; default alpha, beta
	Witness string   // default gamma; "-" for none
	// Arbitration is as in the configuration; default witness, or manual
	// without one.
	Arbitration string
	Resource    string   // default pg
	Size        int64    // of each volume in bytes; default 256 MiB
	Volumes     int      // default 1
	Internal    bool     // metadata at the end of the disk instead of beside it
	Filesystem  string   // made on both copies before the agents start; "" for none
	Frontend    string   // default auto
	Settings    []string // further keys of the resource, each "key: value"
	Services    []string // items of the list in the configuration, each one YAML flow mapping
	Extra       string   // further YAML at the top level of the configuration
	// Watchdog is the time-out of each data node's watchdog, in whole seconds; 0: they
	// have none. With SBD and arbitration fencing they fence each other by pills on a file
	// that both see.
	Watchdog time.Duration
	SBD      bool
	// FenceDevice is the fence device of each data node, a YAML flow mapping in which NODE
	// is its name, CLIENT the address of the client and BMCPORT the port of its controller
	// there; "" for the lab's own.
	FenceDevice string

	// Agent is the program, run as Agent... --config FILE; default the
	// haagent-lab beside the running program, or in bin/ of the source tree.
	Agent    []string
	Programs map[string]string // the agents of single nodes, in place of Agent's first word; see Replace
	Env      []string          // added to the agents' environment
	NoAgents bool              // boot the nodes only
	// KeepMetadata makes no metadata: the agents find bare disks.
	KeepMetadata bool
	// FirstSync does not call the copies equal: an operator promotes one by
	// force, and the other is copied from it.
	FirstSync bool
	// Tether ends every process of the lab when this process dies.
	Tether bool
	// Log is told what happens, one line each; nil for nobody.
	Log func(format string, args ...any) `json:"-"`
}

func (o *Options) defaults() {
	set := func(p *string, to string) {
		if *p == "" {
			*p = to
		}
	}
	set(&o.Dir, "/tmp/halab")
	set(&o.Witness, "gamma")
	set(&o.Resource, "pg")
	set(&o.Frontend, "auto")
	if len(o.Nodes) == 0 {
		o.Nodes = []string{"alpha", "beta"}
	}
	if o.Witness == "-" {
		o.Witness = ""
	}
	if o.Witness == "" {
		set(&o.Arbitration, "manual")
	}
	set(&o.Arbitration, "witness")
	if o.Size == 0 {
		o.Size = 256 << 20
	}
	if o.Volumes == 0 {
		o.Volumes = 1
	}
}

const (
	sizeMin = 8 << 20
	sizeMax = 64 << 30

	volumesMax = 8
)

func (o *Options) check() error {
	switch {
	case os.Geteuid() != 0:
		return errors.New("lab: needs root: namespaces, mounts and loop devices")
	case len(o.Nodes) != 2 || o.Nodes[0] == o.Nodes[1]:
		return fmt.Errorf("lab: %q are not two data nodes", o.Nodes)
	case o.Size < sizeMin || o.Size > sizeMax || o.Size%4096 != 0:
		return fmt.Errorf("lab: a size of %d bytes; want %d to %d, a multiple of 4096", o.Size, sizeMin, int64(sizeMax))
	case o.Volumes < 1 || o.Volumes > volumesMax:
		return fmt.Errorf("lab: %d volumes; 1 to %d", o.Volumes, volumesMax)
	case !filepath.IsAbs(o.Dir):
		return fmt.Errorf("lab: %q is not an absolute path", o.Dir)
	case o.SBD && (o.Arbitration != "fencing" || o.Watchdog == 0):
		return errors.New("lab: sbd goes with arbitration fencing and a watchdog")
	case o.Arbitration == "witness" && o.Witness == "":
		return errors.New("lab: arbitration by a witness needs one")
	case o.Arbitration != "witness" && o.Arbitration != "manual" && o.Arbitration != "fencing":
		return fmt.Errorf("lab: arbitration %q: witness, fencing or manual", o.Arbitration)
	case o.Arbitration != "witness" && o.Witness != "":
		return fmt.Errorf("lab: arbitration %s goes without a witness, not with %s (halab up --witness -)", o.Arbitration, o.Witness)
	}
	for _, name := range append(append([]string{}, o.Nodes...), o.Witness) {
		if name == Client || name == "lan" || len(name) > 32 || name != filepath.Base(name) && name != "" {
			return fmt.Errorf("lab: %q cannot be the name of a node", name)
		}
	}
	return nil
}

// Lab is a pair that is up, or was.
type Lab struct {
	dir   string
	state state
	log   func(string, ...any)
	seen  []loopDevice // of nodes that were on
}

// Dir is where the lab keeps its files.
func (l *Lab) Dir() string { return l.dir }

// Nodes are the names of all nodes, the client included.
func (l *Lab) Nodes() []string {
	var out []string
	for _, n := range l.state.Nodes {
		out = append(out, n.Name)
	}
	return out
}

// Data are the names of the data nodes.
func (l *Lab) Data() []string { return append([]string{}, l.state.Options.Nodes...) }

// Resource is the name of the replicated resource.
func (l *Lab) Resource() string { return l.state.Options.Resource }

// Image is the file behind a data node's disk.
func (l *Lab) Image(node string) string { return l.VolumeImage(node, 0) }

// VolumeImage is the file behind the disk of one of several volumes.
func (l *Lab) VolumeImage(node string, volume int) string {
	return filepath.Join(l.dir, node, diskName("volume", volume))
}

// LogFile is what a node's agent wrote to its standard output and error.
func (l *Lab) LogFile(node string) string { return filepath.Join(l.dir, node, "agent.log") }

// Up builds the lab and starts its agents. What was built is taken down again
// when something fails; the agents' logs are in the error.
func Up(ctx context.Context, o Options) (*Lab, error) {
	o.defaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := o.findAgent(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(o.Dir, stateFile)); err == nil {
		return nil, fmt.Errorf("lab: there is one in %s already: halab down, or another --dir", o.Dir)
	}
	var id [3]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	l := &Lab{dir: o.Dir, log: o.Log, state: newState(hex.EncodeToString(id[:]), o)}
	if l.log == nil {
		l.log = func(string, ...any) {}
	}
	if err := l.build(ctx); err != nil {
		err = fmt.Errorf("lab: %w%s", err, l.lastWords())
		return nil, errors.Join(err, l.Down())
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context) error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	if err := l.save(); err != nil { // before anything that Down must find
		return err
	}
	if err := l.makeFiles(); err != nil {
		return err
	}
	if err := l.makeLAN(); err != nil {
		return err
	}
	for i := range l.state.Nodes {
		if err := l.boot(&l.state.Nodes[i]); err != nil {
			return err
		}
	}
	if l.state.Options.NoAgents {
		return nil
	}
	return l.introduce(ctx)
}

// introduce makes the metadata of the disks, which calls both copies equal
// unless told otherwise, and starts the agents.
func (l *Lab) introduce(ctx context.Context) error {
	if !l.state.Options.KeepMetadata {
		argv := []string{"hactl", "create-metadata", l.Resource()}
		if !l.state.Options.FirstSync {
			argv = append(argv, "--assume-clean")
		}
		for _, name := range l.Data() {
			if _, err := l.Run(ctx, name, argv...); err != nil {
				return err
			}
		}
	}
	if l.state.Options.SBD {
		if _, err := l.Run(ctx, l.Data()[0], "hactl", "create-sbd"); err != nil {
			return err
		}
	}
	for _, n := range l.state.Nodes {
		if n.Kind == kindClient {
			continue
		}
		if err := l.Start(n.Name); err != nil {
			return err
		}
	}
	for _, n := range l.state.Nodes {
		if n.Kind == kindClient {
			continue
		}
		if err := l.AwaitAPI(ctx, n.Name); err != nil {
			return err
		}
	}
	return nil
}

// Open finds a lab that another command brought up.
func Open(dir string) (*Lab, error) {
	l := &Lab{dir: dir, log: func(string, ...any) {}}
	return l, l.load()
}

// Lock keeps other commands from changing the lab in dir until release is
// called. It waits for whoever has it.
func Lock(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: lock %s: %w", dir, err), d.Close())
	}
	return func() { d.Close() }, nil //nolint:errcheck // closing is what releases
}

// Down ends everything of the lab and removes its files. It may be called
// again, and after any crash; what is not there is not missed.
func (l *Lab) Down() error {
	var errs []error
	l.findStrays()
	for i := range l.state.Nodes {
		errs = append(errs, l.cutPower(&l.state.Nodes[i]))
	}
	errs = append(errs, l.freeLoops(l.dir), l.dropNamespaces())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: take down %s: %w", l.dir, err)
	}
	if err := l.removeFiles(); err != nil {
		return fmt.Errorf("lab: take down %s: %w", l.dir, err)
	}
	return nil
}

// removeFiles removes the directory, but only one that is a lab's.
func (l *Lab) removeFiles() error {
	if _, err := os.Stat(filepath.Join(l.dir, stateFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return os.RemoveAll(l.dir)
}

// await asks again and again until it is so, or the time is over.
func await(ctx context.Context, within time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ok()
		case <-tick.C:
		}
	}
	return true
}
