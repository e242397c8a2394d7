package config

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite golden files")

const full = `cluster: shop
nodes:
  alpha: {addresses: {crossover: 10.99.0.1, lan: 192.168.1.11}}
  beta:  {addresses: {crossover: 10.99.0.2, lan: 192.168.1.12}}
witness: {name: gamma, address: 192.168.1.13}      # leave out for a bare pair
arbitration: witness                                # witness | fencing | manual
resources:
  pg:
    volumes: [{disk: /dev/vg0/pg, metadata: /dev/vg0/pg.md}]   # metadata: internal | a path
    frontend: auto                                  # ublk | nbd | fuse | export | auto
    services:                                       # started in this order on the Primary, stopped in reverse
      - mount: {path: /srv/pg, type: ext4}
      - systemd: postgresql.service
      - address: {ip: 192.168.1.50/24, dev: eth0}
`

const fenced = `nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}
disk: /dev/vdb
arbitration: fencing
fencing:
  alpha:
    - {agent: fence_ipmilan, options: {ip: 192.168.1.91, username: ha, password_file: /etc/hapair/ipmi}, timeout: 10s}
    - {agent: fence_apc, options: {ip: 192.168.1.9, username: ha, plug: 1, password_file: /etc/hapair/apc}, level: 2}
    - {agent: /usr/local/sbin/fence_apc_old, options: {ip: 192.168.1.8, plug: 1}, level: 2}
    - {manual: true}
  beta: [{exec: [/usr/local/sbin/fence-beta, now], monitor_interval: 30s, delay: 1m}]
`

var ignoreSource = cmpopts.IgnoreUnexported(Config{})
var compareAddrs = cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := Parse("hapair.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// The example of the documents parses, and every value is where it belongs.
func TestFullExample(t *testing.T) {
	cfg := mustParse(t, full)
	if cfg.Cluster != "shop" || cfg.Arbitration != ArbitrateWitness || cfg.Witness.Name != "gamma" {
		t.Errorf("cluster words: %+v", cfg)
	}
	if a := cfg.Nodes[0].Addresses; len(a) != 2 || a[0].Path != "crossover" || a[0].IP.String() != "10.99.0.1" {
		t.Errorf("addresses lost their order: %+v", a)
	}
	r := cfg.Resource("pg")
	if r.Protocol != ProtocolC || !r.AutoPromote || r.OnNoQuorum != SuspendIO || r.Frontend != FrontendAuto {
		t.Errorf("resource defaults: %+v", r)
	}
	var kinds []string
	for _, s := range r.Services {
		kinds = append(kinds, s.Kind()+" "+s.Name)
	}
	if d := cmp.Diff([]string{"mount /srv/pg", "systemd postgresql.service", "address 192.168.1.50/24"}, kinds); d != "" {
		t.Error(d)
	}
	if cfg.Timing.Lease != 500*time.Millisecond || cfg.Port != 7790 || cfg.HeartbeatPort != 7791 || cfg.Security.Mode != SecurityTLS {
		t.Errorf("defaults: %+v", cfg)
	}
	if p := cfg.Peer("alpha"); p == nil || p.Name != "beta" {
		t.Errorf("peer of alpha: %+v", p)
	}
	if cfg.Peer("gamma") != nil || !cfg.IsWitness("gamma") {
		t.Error("the witness is nobody's peer")
	}
}

// Two addresses and one disk are enough.
func TestSmallest(t *testing.T) {
	for _, text := range []string{
		"nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}\ndisk: /dev/vdb\n",
		"nodes: [10.99.0.1, 10.99.0.2]\ndisk: /dev/vdb\n",
		"nodes: {a: {addresses: 10.99.0.1}, b: {addresses: {main: 10.99.0.2}}}\ndisk: {a: /dev/vdb, b: /dev/sdb}\nmetadata: internal\n",
	} {
		cfg := mustParse(t, text)
		if cfg.Arbitration != ArbitrateManual {
			t.Errorf("a bare pair arbitrates by %s", cfg.Arbitration)
		}
		r := cfg.Resource(DefaultResource)
		if r == nil || len(r.Volumes) != 1 || r.Volumes[0].Disk.For(cfg.Nodes[0].Name) != "/dev/vdb" || r.Volumes[0].Metadata.For("any") != Internal {
			t.Errorf("%s\n%+v", text, r)
		}
	}
}

func TestRenderRoundTrip(t *testing.T) {
	for _, text := range []string{
		full, fenced,
		"nodes: [10.99.0.1, 10.99.0.2]\ndisk: {node1: /dev/vdb, node2: /dev/vdc}\n",
		"nodes: {a: fd00::1, b: fd00::2}\nresources: {x: {volumes: [{disk: /dev/a, size: 1GiB}, {disk: /dev/b}], services: [{exec: {start: touch /tmp/x, stop: [/bin/rm, /tmp/x]}, stop_timeout: 1m30s}, {mount: {path: /m, volume: 1}}]}}\napi: {read_group: \"\"}\n",
	} {
		cfg := mustParse(t, text)
		again, err := Parse("rendered", []byte(cfg.Render()))
		if err != nil {
			t.Fatalf("%v\n%s", err, cfg.Render())
		}
		if d := cmp.Diff(cfg, again, ignoreSource, compareAddrs); d != "" {
			t.Errorf("rendering changed it (-was +now):\n%s\n%s", d, cfg.Render())
		}
	}
}

// Each bad file in testdata has the exact text of its refusal beside it.
func TestGoldenErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d bad files, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("hapair.yaml", data)
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("want Errors, got %v", err)
			}
			golden := strings.TrimSuffix(f, ".yaml") + ".txt"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestCheckImplemented(t *testing.T) {
	var ni *NotImplementedError
	bare := mustParse(t, full)
	if err := bare.CheckImplemented(); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*Resource){
		"resync rate": func(r *Resource) { r.ResyncRate = 1 << 20 },
		"ublk":        func(r *Resource) { r.Frontend = FrontendUblk },
		"nbd":         func(r *Resource) { r.Frontend = FrontendNBD },
	} {
		c := mustParse(t, full)
		c.Resources[0].OnNoQuorum, c.Resources[0].ResyncRate = SuspendIO, 0
		c.Resources[0].Frontend = FrontendAuto
		if err := c.CheckImplemented(); err != nil {
			t.Errorf("without %s: %v", what, err)
		}
		if change(&c.Resources[0]); !errors.As(c.CheckImplemented(), &ni) {
			t.Errorf("%s is accepted", what)
		}
	}
	if err := mustParse(t, fenced).CheckImplemented(); err != nil {
		t.Errorf("arbitration by fencing: %v", err)
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, []byte(strings.Repeat("#\n", MaxFileBytes)), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs Errors
	if _, err := Load(big); !errors.As(err, &errs) {
		t.Errorf("a file over the limit: %v", err)
	}
}

func TestSelf(t *testing.T) {
	cfg := mustParse(t, full)
	for _, c := range []struct {
		host  string
		local string
		want  string
	}{
		{"beta", "127.0.0.1", "beta"},
		{"beta.example.org", "127.0.0.1", "beta"},
		{"gamma", "127.0.0.1", "gamma"},
		{"localhost", "192.168.1.11", "alpha"},
		{"localhost", "192.168.1.13", "gamma"},
		{"localhost", "::ffff:10.99.0.2", "beta"},
	} {
		got, err := cfg.Self(c.host, []netip.Addr{netip.MustParseAddr(c.local)})
		if err != nil || got != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	if got, err := cfg.Self("stranger", nil); err == nil {
		t.Errorf("a stranger is %q", got)
	}
}

// The checks of the machine, with the kernel's files made up.
func TestCheckSystem(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	disk, second := write("disk", "x"), write("second", "x")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(disk, link); err != nil {
		t.Fatal(err)
	}
	m := machine{proc: filepath.Join(dir, "proc"), sys: filepath.Join(dir, "sys")}
	check := func(a, b string) error {
		return mustParse(t, "nodes: [10.99.0.1, 10.99.0.2]\nresources: {x: {volumes: [{disk: "+a+"}, {disk: "+b+"}]}}\n").checkSystem(t.Context(), "node1", m)
	}
	if err := check(disk, second); err != nil {
		t.Errorf("two free disks: %v", err)
	}
	if err := check(disk, link); err == nil || !strings.Contains(err.Error(), "same disk") {
		t.Errorf("one disk under two names: %v", err)
	}
	if err := check(disk, dir); err == nil {
		t.Error("a directory is taken for a disk")
	}
	write("sys/block/loop7/loop/backing_file", disk+"\n")
	if err := check(disk, second); err == nil || !strings.Contains(err.Error(), "loop7") {
		t.Errorf("a file under a loop device: %v", err)
	}
}

func TestMountedDisk(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "self"), 0o755); err != nil {
		t.Fatal(err)
	}
	info := "36 35 8:3 / /srv/pg rw,noatime shared:1 - ext4 /dev/sda3 rw\n37 35 9:1 / /other rw - ext4 /dev/none rw\n"
	if err := os.WriteFile(filepath.Join(dir, "self/mountinfo"), []byte(info), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "dev/block/8:3/holders/dm-4"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := machine{proc: dir, sys: dir}
	uses, err := m.usesOf("/dev/sda3", identity{block: true, dev: unix.Mkdev(8, 3)})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"carries a file system mounted on /srv/pg", "is held by dm-4"}, uses); d != "" {
		t.Error(d)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "4096": 4096, "100GiB": 100 << 30, "512 MiB": 512 << 20, "1.5TiB": 3 << 39, "10GB": 10e9, "10G": 10 << 30} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1XB", "NaN", "1e30PiB", "GiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := Size(rapid.Int64Range(0, 1<<60).Draw(t, "size"))
		if got, err := ParseSize(s.String()); err != nil || got != s {
			t.Fatalf("%d -> %s -> %d, %v", s, s, got, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("nodes: [10.99.0.1, 10.99.0.2]\ndisk: /dev/vdb\n"))
	f.Add([]byte("a: &a [*a]\n"))
	bad, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range bad {
		data, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("fuzz", data)
		if err != nil {
			var errs Errors
			if !errors.As(err, &errs) || len(errs) == 0 || err.Error() == "" {
				t.Fatalf("an untyped or empty error: %#v", err)
			}
			return
		}
		again, err := Parse("rendered", []byte(cfg.Render()))
		if err != nil {
			t.Fatalf("rendering does not parse: %v\n%s", err, cfg.Render())
		}
		if d := cmp.Diff(cfg, again, ignoreSource, compareAddrs); d != "" {
			t.Fatalf("rendering changed it:\n%s", d)
		}
	})
}

// What the file does not say is shown, and marked.
func TestRenderMarksDefaults(t *testing.T) {
	cfg := mustParse(t, "nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}\nresources: {pg: {volumes: [{disk: /dev/vdb}], frontend: fuse, services: [{mount: {path: /srv}}]}}\ntiming: {lease: 500ms}\n")
	text := cfg.Render()
	for _, line := range []string{
		"cluster: hapair  # default", "      main: 10.99.0.1", "# witness: none (default)", "arbitration: manual  # default", "      - disk: /dev/vdb", "        metadata: internal  # default",
		"        # size: as large as the disk (default)", "    frontend: fuse", "    # preferred_node: none (default)", "      - name: /srv  # default",
		"          # type: found out by mount (default)", "  lease: 500ms", "  grace: 560ms  # default", "  # metrics_address: none (default)", "device_dir: /dev/hapair  # default",
	} {
		if !strings.Contains(text, "\n"+line+"\n") && !strings.HasPrefix(text, line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
	for path, want := range map[string]bool{"cluster": true, "witness": true, "timing.lease": false, "timing.grace": true, "resources.pg.frontend": false,
		"resources.pg.services[0].mount.path": false, "resources.pg.services[0].mount.volume": true, "nodes.alpha.addresses": false} {
		if got := slices.Contains(cfg.Defaults(), path); got != want {
			t.Errorf("%s is a default: %t", path, got)
		}
	}
	// The rendering says everything: read again, nothing is a default but what is not there.
	again := mustParse(t, text)
	for _, path := range again.Defaults() {
		if !strings.Contains(text, "# "+path[strings.LastIndexByte(path, '.')+1:]+": ") {
			t.Errorf("%s is a default of the whole text", path)
		}
	}
}

// What is not said of a split brain is left to an operator, and what is given up is
// kept.
func TestSplitBrainSettings(t *testing.T) {
	cfg, err := Parse("x", []byte("nodes: {alpha: {addresses: {lan: 10.0.0.1}}, beta: {addresses: {lan: 10.0.0.2}}}\nresources:\n"+
		"  a: {volumes: [{disk: /a}], split_brain_keep: 5GiB, after_split_brain: {no_primary: discard-node-beta, one_primary: consensus}}\n"+
		"  b: {volumes: [{disk: /b}], split_brain_keep: off}\n  c: {volumes: [{disk: /c}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		policies [3]string
		bytes    int64
		off      bool
	}{{[3]string{"discard-node-beta", "consensus", "disconnect"}, 5 << 30, false}, {[3]string{}, 0, true}, {[3]string{}, 0, false}} {
		r := &cfg.Resources[i]
		if bytes, off := r.SplitBrainKeep.Limit(); r.AfterSplitBrain.Policies() != want.policies || bytes != want.bytes || off != want.off {
			t.Errorf("%s: %v, %d, %v", r.Name, r.AfterSplitBrain, bytes, off)
		}
	}
}
