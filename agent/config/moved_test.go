package config

import (
	"strings"
	"testing"
)

const movable = `cluster: shop
nodes:
  alpha: {addresses: {crossover: 10.99.0.1, lan: 192.168.1.11}}
  beta:  {addresses: {crossover: 10.99.0.2, lan: 192.168.1.12}}
witness: {name: gamma, address: 192.168.1.13}
disk: /dev/vg0/data
`

const fencing = `arbitration: fencing
fencing:
  alpha: [{exec: [/usr/local/sbin/fence-alpha]}]
  beta: [{exec: [/usr/local/sbin/fence-beta]}]
`

// A witness comes to a pair that fences, and its devices go; what fences is not changed
// while it runs.
func TestBeyondFencing(t *testing.T) {
	parse := func(text string) *Config {
		c, err := Parse("hapair.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	by := func(arbitration string) *Config {
		return parse(strings.ReplaceAll(movable, "witness: {name: gamma, address: 192.168.1.13}\n", arbitration))
	}
	if was, now := by(fencing).Beyond(parse(movable), "alpha"); was+now != "" {
		t.Errorf("a witness in place of fencing: was %q, now %q", was, now)
	}
	for _, c := range [][2]*Config{{by(fencing), by("")}, {by(""), by(fencing)}} {
		if was, _ := c[0].Beyond(c[1], "alpha"); was == "" {
			t.Errorf("from %s to %s", c[0].Arbitration, c[1].Arbitration)
		}
	}
}

// Addresses of other members may change under a running agent, and nothing else.
func TestBeyondAddresses(t *testing.T) {
	parse := func(text string) *Config {
		c, err := Parse("hapair.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := parse(movable)
	if old.File() != "hapair.yaml" {
		t.Error(old.File())
	}
	for _, c := range []struct{ self, from, to, was, now string }{
		{"alpha", "", "", "", ""},
		{"alpha", "10.99.0.2", "10.99.0.22", "", ""},
		{"gamma", "10.99.0.2", "10.99.0.22", "", ""},
		{"alpha", "address: 192.168.1.13", "address: 192.168.1.14", "", ""},
		{"alpha", "disk: /dev/vg0/data", "port: 7790\ndisk: /dev/vg0/data", "", ""}, // the default, said
		{"beta", "10.99.0.2", "10.99.0.22", "crossover: 10.99.0.2", "crossover: 10.99.0.22"},
		{"gamma", "address: 192.168.1.13", "address: 192.168.1.14", "address: 192.168.1.13", "address: 192.168.1.14"},
		{"alpha", "name: gamma", "name: delta", "", ""},
		{"gamma", "name: gamma", "name: delta", "name: gamma", "name: delta"},
		{"alpha", "cluster: shop", "cluster: office", "cluster: shop", "cluster: office"},
		{"alpha", "witness: {name: gamma, address: 192.168.1.13}\n", "", "", ""},
		{"gamma", "witness: {name: gamma, address: 192.168.1.13}\n", "", "witness:", "# witness: none"},
		{"alpha", "witness: {name: gamma, address: 192.168.1.13}\n", fencing, "witness:", "# witness: none"},
		{"alpha", "crossover", "direct", "crossover: 10.99.0.1", "direct: 10.99.0.1"},
		{"alpha", "disk: /dev/vg0/data", "disk: /dev/vg1/data", "/dev/vg0/data", "/dev/vg1/data"},
	} {
		was, now := old.Beyond(parse(strings.ReplaceAll(movable, c.from, c.to)), c.self)
		if c.from == "" {
			was, now = old.Beyond(old, c.self)
		}
		if (was == "") != (c.was == "") || !strings.Contains(was, c.was) || !strings.Contains(now, c.now) {
			t.Errorf("%s: %q to %q: was %q, now %q, wanted %q and %q", c.self, c.from, c.to, was, now, c.was, c.now)
		}
	}
}
