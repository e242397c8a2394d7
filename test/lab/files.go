package lab

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
)

// Files inside a node.
const (
	ConfigFile = "/etc/hapair/hapair.yaml"
	Socket     = "/run/hapair/agent.sock"
	noteFile   = "agent.json"

	faultSocket = "/run/lab-faults.sock"

	internalBytes = 16 << 20 // kept free at the end of a disk with internal metadata
	keyBytes      = 32
	bmcBytes      = 8 // of a password, as text twice as long
)

var configText = template.Must(template.New("hapair.yaml").Parse(`cluster: lab-{{.ID}}
nodes:
{{- range .Data}}
  {{.Name}}: {addresses: {crossover: {{.Crossover}}, lan: {{.LAN}}}}
{{- end}}
{{- if .Witness}}
witness: {name: {{.Witness.Name}}, address: {{.Witness.LAN}}}
{{- end}}
arbitration: {{.Options.Arbitration}}
security:
  mode: psk
  psk_file: /etc/hapair/cluster.psk
  gossip_key_file: /etc/hapair/gossip.key
api: {read_group: root}
resources:
  {{.Options.Resource}}:
    volumes: [{{.Volumes}}]
    frontend: {{.Options.Frontend}}
{{- range .Options.Settings}}
    {{.}}
{{- end}}
{{- if .Options.Services}}
    services:
{{- range .Options.Services}}
      - {{.}}
{{- end}}
{{- end}}
{{- if .Options.Watchdog}}
watchdog: {device: {{.Device}}, timeout: {{.Options.Watchdog}}}
{{- end}}
{{- if .Options.SBD}}
fencing:
{{- range .Data}}
  {{.Name}}: [{sbd: {{$.SBD}}, monitor_interval: 5s}]
{{- end}}
{{- else if .Options.FenceDevice}}
fencing:
{{- range .Data}}
  {{.Name}}: [{{.Device}}]
{{- end}}
{{- else if eq .Options.Arbitration "fencing"}}
fencing:
{{- range .Data}}
  {{.Name}}: [{agent: {{$.Fence}}, options: {dir: {{$.Dir}}, plug: {{.Name}}}, timeout: 5s, monitor_interval: 5s}]
{{- end}}
{{- end}}
{{.Options.Extra}}
`))

type configNode struct {
	Name, Crossover, LAN string
	Device               string // its fence device
}

func (l *Lab) config() (string, error) {
	v := struct {
		ID, Volumes string
		Dir, Fence  string // of the lab's fence agent
		Device, SBD string // watchdog, and disk with pills
		Options     Options
		Data        []configNode
		Witness     *configNode
	}{ID: l.state.ID, Options: l.state.Options, Volumes: l.state.Options.volumes(), Dir: l.dir, Fence: l.FenceProgram(), Device: WatchdogDevice, SBD: l.SBDDisk()}
	client := ""
	for _, n := range l.state.Nodes {
		if n.Kind == kindClient {
			client = n.address(LAN)
		}
	}
	for _, n := range l.state.Nodes {
		c := configNode{n.Name, n.address(Crossover), n.address(LAN), strings.NewReplacer("NODE", n.Name, "CLIENT", client, "BMCPORT", strconv.Itoa(n.bmcPort())).Replace(l.state.Options.FenceDevice)}
		switch n.Kind {
		case kindData:
			v.Data = append(v.Data, c)
		case kindWitness:
			v.Witness = &c
		case kindClient:
		}
	}
	out := new(strings.Builder)
	if err := configText.Execute(out, v); err != nil {
		return "", fmt.Errorf("write the configuration: %w", err)
	}
	return out.String(), nil
}

// diskName is a file below a node's directory and, with a slash before it, in the node.
func diskName(what string, volume int) string {
	if volume == 0 {
		return "disks/" + what + ".img"
	}
	return fmt.Sprintf("disks/%s%d.img", what, volume)
}

// volumes are the items of the list in the configuration.
func (o *Options) volumes() string {
	var items []string
	for i := range o.Volumes {
		metadata := "/" + diskName("metadata", i)
		if o.Internal {
			metadata = "internal"
		}
		items = append(items, fmt.Sprintf("{disk: /%s, metadata: %s}", diskName("volume", i), metadata))
	}
	return strings.Join(items, ", ")
}

// makeFiles makes every node's directory: etc with the configuration and the
// keys, lib for the agent's state, disks.
func (l *Lab) makeFiles() error {
	config, err := l.config()
	if err != nil {
		return err
	}
	psk, gossip, bmc, err := newKeys()
	if err != nil {
		return err
	}
	for _, n := range l.state.Nodes {
		dir := filepath.Join(l.dir, n.Name)
		for _, d := range []string{"etc", "lib", "disks", "root"} {
			if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
				return err
			}
		}
		for name, text := range map[string]string{"hapair.yaml": config, "cluster.psk": psk, "gossip.key": gossip, filepath.Base(BMCPasswordFile): bmc} {
			if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o600); err != nil {
				return err
			}
		}
	}
	for name, program := range l.state.Options.Programs {
		if err := l.Replace(name, program); err != nil {
			return err
		}
	}
	return errors.Join(linkSelf(l.FenceProgram()), l.makeDisks())
}

func newKeys() (psk, gossip, bmc string, err error) {
	var b [2*keyBytes + bmcBytes]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", "", "", err
	}
	line := func(b []byte) string { return hex.EncodeToString(b) + "\n" }
	return line(b[:keyBytes]), line(b[keyBytes : 2*keyBytes]), line(b[2*keyBytes:]), nil
}

// makeDisks makes both copies equal: the file system is made on the first and
// copied, so that nothing is to be synced.
func (l *Lab) makeDisks() error {
	o := l.state.Options
	for i, name := range o.Nodes {
		for v := range o.Volumes {
			if err := sparse(l.VolumeImage(name, v), o.Size); err != nil {
				return err
			}
		}
		if o.Filesystem == "" {
			continue
		}
		if i == 0 {
			if err := l.makeFilesystem(l.Image(name)); err != nil {
				return err
			}
			continue
		}
		if out, err := exec.Command("cp", "--sparse=always", l.Image(o.Nodes[0]), l.Image(name)).CombinedOutput(); err != nil {
			return fmt.Errorf("copy the disk: %w: %s", err, out)
		}
	}
	return nil
}

func sparse(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func (l *Lab) makeFilesystem(file string) error {
	o := l.state.Options
	argv := []string{"mkfs." + o.Filesystem, "-q", file}
	if o.Internal {
		if o.Filesystem != "ext4" {
			return fmt.Errorf("internal metadata beside %s: only ext4 can be made smaller than its disk here", o.Filesystem)
		}
		argv = append(argv, fmt.Sprintf("%dk", (o.Size-internalBytes)>>10))
	}
	if o.Filesystem == "ext4" {
		// Initialised at once: nothing is written behind the tests' backs.
		argv = append(argv[:1], append([]string{"-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"}, argv[1:]...)...)
	}
	path, err := l.LookPath(argv[0])
	if err != nil {
		return err
	}
	if out, err := exec.Command(path, argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w: %s", argv, err, out)
	}
	return nil
}

// agentCommand is how the agent is started on a node.
func (l *Lab) agentCommand(n *node) []string {
	argv := append([]string{}, l.state.Options.Agent...)
	if _, ok := l.state.Options.Programs[n.Name]; ok {
		argv[0] = l.program(n.Name)
	}
	argv = append(argv, "--config", ConfigFile)
	if n.Kind == kindWitness {
		argv = append(argv, "--witness")
	}
	return argv
}

// logTailBytes is how much of a log an error carries.
const logTailBytes = 2000

// lastWords are the ends of the agents' logs.
func (l *Lab) lastWords() string {
	out := new(strings.Builder)
	for _, n := range l.state.Nodes {
		for _, name := range []string{"init.log", "agent.log"} {
			text, err := os.ReadFile(filepath.Join(l.dir, n.Name, name))
			if err != nil || len(text) == 0 {
				continue
			}
			if len(text) > logTailBytes {
				text = text[len(text)-logTailBytes:]
			}
			fmt.Fprintf(out, "\n--- %s %s\n%s", n.Name, name, text)
		}
	}
	return out.String()
}
