package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"hapair/ctl/client"
)

const (
	resourceName = "bench"
	keyBytes     = 32
)

// pair is two agents and a witness on loopback addresses, with the export
// front end.
type pair struct {
	dir     string
	network int
	agent   string
	ctl     string
	near    box // with the client
	far     box
	images  []string
	procs   []*process
	first   *client.Client // the Primary
}

// The waits are long: this is about the data path, and a node that is starved
// by the other load of the machine must not be failed over.
var pairConfig = template.Must(template.New("hapair.yaml").Parse(`cluster: bench
nodes:
  alpha: {addresses: {crossover: 127.{{.Network}}.0.1, lan: 127.{{.Network}}.1.1}}
  beta:  {addresses: {crossover: 127.{{.Network}}.0.2, lan: 127.{{.Network}}.1.2}}
witness: {name: gamma, address: 127.{{.Network}}.1.3}
arbitration: witness
resources:
  {{.Resource}}:
    volumes: [{disk: {alpha: {{index .Images 0}}, beta: {{index .Images 1}}}, metadata: {{.Dir}}/metadata}]
    frontend: export
    preferred_node: alpha
security: {mode: psk, psk_file: {{.Keys}}/psk, gossip_key_file: {{.Keys}}/gossip}
timing: {heartbeat: 1s, link: 3s, lease: 4s, renew: 500ms, grace: 5s}
api: {read_group: ""}
state_dir: {{.Dir}}/state
run_dir: {{.Dir}}/run
device_dir: {{.Dir}}/dev
`))

func (h *pair) name() string        { return "hapair" }
func (h *pair) servers() []*process { return h.procs }
func (h *pair) copies() []string    { return h.images }

func (h *pair) stop() error {
	if h.first != nil {
		h.first.Close()
	}
	// In the order of the start: the witness is asked by those before it.
	var errs []error
	for _, p := range h.procs {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

func (h *pair) home(node string) string   { return filepath.Join(h.dir, node) }
func (h *pair) config(node string) string { return filepath.Join(h.home(node), "hapair.yaml") }
func (h *pair) socket(node string) string { return filepath.Join(h.home(node), "run", "agent.sock") }

func (h *pair) start(ctx context.Context) (string, error) {
	for _, key := range []string{"psk", "gossip"} {
		if err := writeKey(filepath.Join(h.dir, key)); err != nil {
			return "", err
		}
	}
	for _, node := range []string{"alpha", "beta", "gamma"} {
		if err := h.prepare(ctx, node); err != nil {
			return "", err
		}
	}
	for _, node := range []string{"alpha", "beta", "gamma"} {
		args := []string{"--config", h.config(node), "--node", node}
		if node == "gamma" {
			args = append(args, "--witness")
		}
		p, err := start(h.box(node), h.dir, "hapair-"+node, h.agent, args...)
		if err != nil {
			return "", err
		}
		h.procs = append(h.procs, p)
	}
	h.first = client.New(h.socket("alpha"))
	export := filepath.Join(h.home("alpha"), "run", "export", resourceName+"-0.sock")
	err := await(ctx, "start hapair", h.procs, func() error { return errors.Join(h.healthy(ctx), listens(export)) })
	return "nbd+unix:///?socket=" + url.QueryEscape(export), err
}

// box is where a node runs; the witness, which has nothing to do, is anywhere.
func (h *pair) box(node string) box {
	switch node {
	case "alpha":
		return h.near
	case "beta":
		return h.far
	}
	return box{}
}

func writeKey(file string) error {
	b := make([]byte, keyBytes)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(hex.EncodeToString(b)+"\n"), 0o600)
}

// prepare writes a node's files; both copies are declared equal, as they are.
func (h *pair) prepare(ctx context.Context, node string) error {
	for _, d := range []string{"state", "run", "dev"} {
		if err := os.MkdirAll(filepath.Join(h.home(node), d), 0o700); err != nil {
			return err
		}
	}
	text := new(strings.Builder)
	if err := pairConfig.Execute(text, map[string]any{"Network": h.network, "Resource": resourceName, "Images": h.images, "Dir": h.home(node), "Keys": h.dir}); err != nil {
		return fmt.Errorf("configuration of %s: %w", node, err)
	}
	if err := os.WriteFile(h.config(node), []byte(text.String()), 0o600); err != nil {
		return err
	}
	if node == "gamma" {
		return nil
	}
	cmd := exec.CommandContext(ctx, h.ctl, "--config", h.config(node), "--socket", h.socket(node), "create-metadata", resourceName, "--node", node, "--assume-clean")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("metadata of %s: %w: %s", node, err, out)
	}
	return nil
}

// healthy wants alpha to be Primary and both copies to take every write.
func (h *pair) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := h.first.Status(ctx)
	if err != nil {
		return err
	}
	r := s.Resource(resourceName)
	switch {
	case r == nil:
		return errors.New("the agent does not know the resource yet")
	case r.Role != "Primary":
		return fmt.Errorf("alpha is %s, not Primary", r.Role)
	case len(r.InSync) != 2 || !slices.Contains(r.InSync, "beta"):
		return fmt.Errorf("in sync are %v, not both", r.InSync)
	case len(r.Peers) != 1 || r.Peers[0].Replication != "Established":
		return fmt.Errorf("replication is not Established: %+v", r.Peers)
	case len(s.Resources) != 1 || r.Frozen:
		return fmt.Errorf("I/O waits: %v", r.FrozenReasons)
	}
	return nil
}
