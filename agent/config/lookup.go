package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// SocketName is the control socket's name inside RunDir.
const SocketName = "agent.sock"

// Socket returns the path of the control socket.
func (c *Config) Socket() string { return filepath.Join(c.RunDir, SocketName) }

// DevicePath returns the stable link of a volume.
func (c *Config) DevicePath(resource string, volume int) string {
	return filepath.Join(c.DeviceDir, resource, strconv.Itoa(volume))
}

// Node returns a data node by name, nil when there is none.
func (c *Config) Node(name string) *Node {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i]
		}
	}
	return nil
}

// Peer returns the other data node, nil when node is not one of two.
func (c *Config) Peer(node string) *Node {
	if c.Node(node) == nil {
		return nil
	}
	for i := range c.Nodes {
		if c.Nodes[i].Name != node {
			return &c.Nodes[i]
		}
	}
	return nil
}

// Resource returns a resource by name, nil when there is none.
func (c *Config) Resource(name string) *Resource {
	for i := range c.Resources {
		if c.Resources[i].Name == name {
			return &c.Resources[i]
		}
	}
	return nil
}

// NodeNames returns the data nodes' names in the order of the file.
func (c *Config) NodeNames() []string {
	names := make([]string, 0, len(c.Nodes))
	for _, n := range c.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// IsWitness reports whether name is the witness.
func (c *Config) IsWitness(name string) bool { return c.Witness != nil && c.Witness.Name == name }

// On returns the node's address on a path.
func (n *Node) On(path string) (netip.Addr, bool) {
	for _, a := range n.Addresses {
		if a.Path == path {
			return a.IP, true
		}
	}
	return netip.Addr{}, false
}

// Self finds which member of the cluster this machine is: by its host name
// (with or without the domain), otherwise by one of its local addresses. The
// error says what was looked for.
func (c *Config) Self(hostname string, local []netip.Addr) (string, error) {
	short, _, _ := strings.Cut(hostname, ".")
	for _, name := range []string{hostname, short} {
		if c.Node(name) != nil || c.IsWitness(name) {
			return name, nil
		}
	}
	mine := make(map[netip.Addr]bool, len(local))
	for _, a := range local {
		mine[a.Unmap().WithZone("")] = true
	}
	for _, n := range c.Nodes {
		for _, a := range n.Addresses {
			if mine[a.IP.WithZone("")] {
				return n.Name, nil
			}
		}
	}
	if c.Witness != nil && mine[c.Witness.Address] {
		return c.Witness.Name, nil
	}
	return "", fmt.Errorf("this machine is not in the configuration: neither its name %q nor one of its addresses is there (nodes: %s)",
		hostname, strings.Join(c.Members(), ", "))
}

// Members returns all members' names, the witness last.
func (c *Config) Members() []string {
	names := c.NodeNames()
	if c.Witness != nil {
		names = append(names, c.Witness.Name)
	}
	return names
}
