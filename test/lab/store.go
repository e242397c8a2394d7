package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const stateFile = "lab.json"

type kind string

const (
	kindData    kind = "data"
	kindWitness kind = "witness"
	kindClient  kind = "client"
)

// state is what separate commands must know of a lab.
type state struct {
	ID      string
	Options Options
	Nodes   []node
}

// node is one machine of the lab.
type node struct {
	Name  string
	Kind  kind
	Index int             // in addresses and device names
	Init  process         // process 1; zero while the power is off
	Cut   map[string]bool // paths whose cable is pulled
	Ill   map[string]Ill  `json:",omitempty"` // of those that are not well
}

// process is one process, not confused with a later one of the same number.
type process struct {
	PID   int
	Start uint64 // field 22 of /proc/PID/stat
}

func newState(id string, o Options) state {
	s := state{ID: id, Options: o}
	add := func(name string, k kind, index int) {
		s.Nodes = append(s.Nodes, node{Name: name, Kind: k, Index: index, Cut: map[string]bool{}})
	}
	for i, name := range o.Nodes {
		add(name, kindData, i+1)
	}
	if o.Witness != "" {
		add(o.Witness, kindWitness, 3)
	}
	add(Client, kindClient, 100)
	return s
}

func (l *Lab) node(name string) (*node, error) {
	for i := range l.state.Nodes {
		if l.state.Nodes[i].Name == name {
			return &l.state.Nodes[i], nil
		}
	}
	return nil, fmt.Errorf("lab: %w %q; there are %v", ErrNoNode, name, l.Nodes())
}

func (l *Lab) save() error {
	text, err := json.MarshalIndent(l.state, "", "  ")
	if err != nil {
		return fmt.Errorf("write the lab's state: %w", err)
	}
	file := filepath.Join(l.dir, stateFile)
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func (l *Lab) load() error {
	text, err := os.ReadFile(filepath.Join(l.dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab: none in %s: halab up, or --dir: %w", l.dir, err)
	}
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := json.Unmarshal(text, &l.state); err != nil {
		return fmt.Errorf("lab: %s/%s: %w", l.dir, stateFile, err)
	}
	return nil
}
