package tidy

import (
	"fmt"
	"strconv"
	"strings"
)

// Layer orders packages; imports point to a lower layer only.
type Layer int

// The layers, from the bottom.
const (
	Words    Layer = iota // plain types, nothing of ours below them but words
	Pure                  // no clock, goroutine, I/O or randomness
	Core                  // pure as well, built of pure parts: the engine, the plan
	Kernel                // what the kernel offers, in the form all hands need it; it decides nothing
	Hands                 // kernel, disk, network, processes
	Faces                 // one per room: what the agent talks to
	Agent                 // fills the needs of the rooms
	Commands              // main packages
	Tests                 // labs, fakes and benches
)

// String returns the word for the layer.
func (l Layer) String() string {
	return [...]string{"words", "pure", "core", "kernel", "hands", "face", "agent", "command", "test"}[l]
}

// place is one line of the table.
type place struct {
	path  string // exact, or a prefix when it ends in /...
	layer Layer
	why   string
}

// places says where each package belongs. The longest match counts.
var places = []place{
	{"mirror/block", Words, "requests, geometry and the two doors, spoken by front ends, engine and disks"},
	{"mirror/state", Words, "roles and states, with their numbers on the wire"},
	{"failover/lease", Words, "tokens and leases: rooms hand them to each other through the agent"},
	{"fencing/device", Words, "outcomes of a fence, and what every fence device is"},
	{"agent/apiv1", Words, "the words of the API; hactl imports these and nothing else of the agent's inside"},

	{"mirror/genid", Pure, "comparison of generations: a table, tested as one"},
	{"mirror/aftersplit", Pure, "DRBD's policies after a split brain: a table, tested as one"},
	{"mirror/dirty", Pure, "the bitmap; writing it is meta's work"},
	{"mirror/actlog", Pure, "the activity log as transactions; writing them is meta's work"},
	{"mirror/pace", Pure, "rates from measured latencies; the clock is an argument"},
	{"mirror/wire", Pure, "the codec; sockets are link's"},
	{"heartbeat/detect", Pure, "evidence in, verdict out"},
	{"agent/paths/choose", Pure, "evidence in, which paths are fit out"},
	{"failover/ledger/record", Pure, "the state machine under the ledger"},
	{"failover/vip/frame", Pure, "bytes of ARP and neighbour discovery"},

	{"agent/recorder/story", Pure, "hybrid time, entries and their order; the files and streams are recorder's"},

	{"mirror/engine", Core, "one resource as a function of its state and one event"},
	{"failover/plan", Core, "one node's next step as a function of what it sees"},

	{"kernel/apart", Kernel, "threads for system calls that wait for a device of ours"},
	{"kernel/durable", Kernel, "files that a power cut finds whole"},
	{"kernel/freebind", Kernel, "listeners on addresses that no interface has yet"},
	{"kernel/program", Kernel, "programs of others, run with bounds"},
	{"kernel/secret", Kernel, "files that only root may read"},
	{"kernel/watchdog", Kernel, "the device that resets the machine"},
	{"kernel/mounts", Kernel, "the mount tables, in one spelling"},
	{"kernel/writeout", Kernel, "a process that the kernel writes out through"},

	{"mirror/...", Hands, "front ends, disks, links, metadata"},
	{"heartbeat/...", Hands, "memberlist, netlink"},
	{"failover/...", Hands, "raft, addresses, services"},
	{"fencing/...", Hands, "fence agents, watchdog"},

	{"mirror", Faces, "the room's face"},
	{"heartbeat", Faces, "the room's face"},
	{"failover", Faces, "the room's face"},
	{"fencing", Faces, "the room's face"},

	{"agent/config", Hands, "reads the file and asks the machine"},
	{"agent/peering", Hands, "sockets between nodes, for whoever the agent hands them to"},
	{"agent/...", Agent, "wires the rooms; the only one that may know them all"},
	{"agent", Commands, "haagent"},
	{"ctl/...", Agent, "hactl's insides: they speak to the agent over its socket"},
	{"ctl", Commands, "hactl"},
	{"packaging/...", Commands, "builds packages"},
	{"test/...", Tests, "may import everything and is imported by tests and lab builds only"},
}

// shared is what all rooms may import: words that cross the rooms' borders as
// values, and what the kernel asks of every room alike. A second spelling of
// them would be a second meaning.
var shared = map[string]string{
	"mirror/state":    "the plan judges disk states; the API and the log spell them alike",
	"failover/lease":  "the mirror answers under a lease and fences by its token",
	"kernel/apart":    "the mirror serves the devices that the services mount: a killed agent must leave both",
	"kernel/durable":  "the agent and the metadata keep small files alike",
	"kernel/secret":   "keys of links and passwords of fence devices are judged alike",
	"kernel/program":  "services and fence devices are programs of others",
	"kernel/watchdog": "self-fencing pets it, and the configuration looks for it",
	"kernel/mounts":   "front ends, disks and services look for the same mounts",
}

// sameLayer lists the imports that stay within one layer, beside those of a
// package's own folders.
var sameLayer = []struct{ from, to, why string }{
	{"agent/...", "agent/...", "the agent is one thing in several folders"},
	{"ctl/...", "ctl/...", "so is hactl"},
	{"test/...", "test/...", "a bench uses the lab"},
	{"mirror/front/...", "mirror/front/...", "front ends share errno, holder and their suite"},
	{"failover/ledger/...", "failover/ledger/...", "the ledger's own parts: log store, transport"},
	{"failover/service/...", "failover/vip", "an address is one of the services"},
	{"mirror/store/...", "mirror/store/...", "a disk, and how the kernel is asked"},
	{"mirror/link", "mirror/stream", "frames leave together"},
	{"mirror/front/...", "mirror/stream", "replies leave together"},
	{"kernel/program", "kernel/writeout", "a program that is started must not be what the agent is to the kernel"},
	{"agent/config", "agent/config/...", "parts of the parser"},
	{"agent/config", "failover/service", "the services judge their own options; a second judge would be of another mind"},
	{"agent/config", "failover/vip", "so does an address"},
	{"agent/config", "fencing/fenceagent", "so do fence devices"},
	{"agent/config", "fencing/handler", "likewise"},
	{"agent/config", "fencing/sbd", "likewise"},
}

func match(pattern, pkg string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
	}
	return pattern == pkg
}

// placeOf finds the longest matching line; an exact one beats a prefix. A
// package called ...test, as fronttest, is for tests wherever it stands.
func placeOf(pkg string) (place, bool) {
	if rooms[roomOf(pkg)] && strings.HasSuffix(pkg, "test") {
		return place{pkg, Tests, "by its name"}, true
	}
	var best place
	score := -1
	for _, p := range places {
		n := 2 * len(strings.TrimSuffix(p.path, "/..."))
		if p.path == pkg {
			n++
		}
		if match(p.path, pkg) && n > score {
			best, score = p, n
		}
	}
	return best, score >= 0
}

func roomOf(pkg string) string {
	room, _, _ := strings.Cut(pkg, "/")
	return room
}

var rooms = map[string]bool{"mirror": true, "heartbeat": true, "failover": true, "fencing": true}

// imports judges every import of ours in a file.
func (t *tree) imports(f *file) []Finding {
	var out []Finding
	from, known := placeOf(f.dir)
	if !known && f.dir != "." {
		return []Finding{t.at(f, f.ast.Package, "layer", "package %s stands in no layer: add it to places in test/tidy/layers.go", f.dir)}
	}
	for _, spec := range f.ast.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser accepted it; go build will not
		}
		pkg, ours := strings.CutPrefix(target, Module+"/")
		if !ours {
			continue
		}
		if why := judgeImport(f, from, pkg); why != "" {
			out = append(out, t.at(f, spec.Pos(), "layer", "%s imports %s: %s", f.dir, pkg, why))
		}
	}
	return out
}

// judgeImport returns "" for an allowed import, else why it is not.
func judgeImport(f *file, from place, pkg string) string {
	to, known := placeOf(pkg)
	switch {
	case !known:
		return "it stands in no layer"
	case pkg == f.dir:
		return "" // an external test of the package itself
	case to.layer == Tests && from.layer != Tests && !f.test && !f.lab:
		return "only tests and files built with the tag lab may import from test/"
	case to.layer == Tests:
		return ""
	case rooms[roomOf(f.dir)] && roomOf(f.dir) != roomOf(pkg):
		return judgeCrossing(f.dir, pkg)
	case f.test, to.layer < from.layer, from.layer == Words && to.layer == Words:
		return ""
	case to.layer == from.layer && besides(f.dir, pkg):
		return ""
	}
	return fmt.Sprintf("%s may not import %s; imports point downwards", from.layer, to.layer)
}

func judgeCrossing(from, pkg string) string {
	if _, ok := shared[pkg]; ok {
		return ""
	}
	if roomOf(pkg) == "agent" || roomOf(pkg) == "ctl" {
		return "a room knows nothing of the agent around it: declare the need, the agent fills it"
	}
	return fmt.Sprintf("the rooms %s and %s never import each other: declare the need, the agent fills it", roomOf(from), roomOf(pkg))
}

// besides reports a part that stands next to, or below, the importer.
func besides(from, to string) bool {
	for _, s := range sameLayer {
		if match(s.from, from) && match(s.to, to) {
			return true
		}
	}
	return strings.HasPrefix(to, from+"/") || strings.HasPrefix(from, to+"/")
}
