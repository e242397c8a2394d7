package config

import (
	"reflect"
	"slices"
)

// File is where the configuration was read from.
func (c *Config) File() string {
	if c.src == nil {
		return ""
	}
	return c.src.name
}

// Beyond compares c, in use on node self, with a later reading: it returns the first
// line of each that differs otherwise than by the address of another member on a path
// that it has, as Render writes it; nothing where that is all. On a data node a witness
// may have come, gone, or be another, and the arbitration with it; but fencing not,
// which needs its devices from the start.
func (c *Config) Beyond(next *Config, self string) (was, now string) {
	old, n := *c, *next
	old.src, n.src = nil, nil // what is written as a default is the same as given
	n.Nodes = slices.Clone(n.Nodes)
	for i := range n.Nodes {
		if had := c.Node(n.Nodes[i].Name); had != nil && had.Name != self && samePaths(had, &n.Nodes[i]) {
			n.Nodes[i].Addresses = had.Addresses
		}
	}
	if w := n.Witness; w != nil && c.IsWitness(w.Name) && w.Name != self {
		n.Witness = c.Witness
	}
	if c.Node(self) != nil && (c.Witness != nil || n.Witness != nil) && (n.Arbitration != ArbitrateFencing || c.Arbitration == ArbitrateFencing) {
		n.Witness, n.Arbitration, n.Fencing = c.Witness, c.Arbitration, c.Fencing
	}
	a, b := old.render().lines, n.render().lines
	for i := range max(len(a), len(b)) {
		was, now = lineOf(a, i), lineOf(b, i)
		if was != now {
			return was, now
		}
	}
	return "", ""
}

func samePaths(a, b *Node) bool {
	paths := func(n *Node) (out []string) {
		for _, ad := range n.Addresses {
			out = append(out, ad.Path)
		}
		return out
	}
	return reflect.DeepEqual(paths(a), paths(b))
}

// lineOf is a line by its number from 0, and says so where there is none.
func lineOf(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}
