package vip

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"

	"hapair/failover/vip/frame"
)

// Site is where an address is put, and all that is needed to take it away.
type Site struct {
	Prefix netip.Prefix `json:"prefix"`
	Dev    string       `json:"dev"`
	// MAC, when not zero, is the virtual MAC: the address is put on a device of
	// its own over Dev, which all addresses with this MAC share.
	MAC frame.MAC `json:"mac,omitzero"`
	// SourceFor, when valid, is where what leaves without a source of its own leaves
	// with this address: a network of the same family.
	SourceFor netip.Prefix `json:"source_for,omitzero"`
}

// Clear takes away what was put there, like [Address.Remove].
func (s Site) Clear() error {
	a, err := New(Config{Site: s})
	if err != nil {
		return err
	}
	return a.Remove()
}

// Present reports whether the address is there, like [Address.Present].
func (s Site) Present() (bool, error) {
	a, err := New(Config{Site: s})
	if err != nil {
		return false, err
	}
	return a.Present()
}

// Silence takes the address alone away, if it can: what was made for it stays, and
// takes a kernel longer to delete. Clear has the last word.
func (s Site) Silence() {
	p, err := openPort(s, "")
	if err != nil {
		return
	}
	defer p.close()
	if l, err := p.link(); err == nil {
		_ = p.drop(l, s.Prefix) // Clear tells
	}
}

// Virtual reports whether the address has a MAC of its own.
func (s Site) Virtual() bool { return !s.MAC.IsZero() }

// devicePrefix begins the names of all devices made here.
const devicePrefix = "hapair-"

// Device is the name of the device that has the address: Dev, or one that is
// made for the virtual MAC, of 15 characters, the longest name there is.
func (s Site) Device() string {
	if !s.Virtual() {
		return s.Dev
	}
	sum := sha256.Sum256([]byte(s.Dev + " " + s.MAC.String()))
	return devicePrefix + hex.EncodeToString(sum[:4])
}

// VirtualMAC derives a MAC for the addresses of a resource on a device: locally
// administered, the same on both nodes, and another for each pair on a network,
// even when they bear the same names, because no two have the same first address.
func VirtualMAC(cluster, resource, dev string, first netip.Addr) frame.MAC {
	sum := sha256.Sum256([]byte("hapair virtual MAC\n" + cluster + "\n" + resource + "\n" + dev + "\n" + first.String()))
	m := frame.MAC(sum[:6])
	m[0] = m[0]&^1 | 2
	return m
}
