// Package frame builds and reads the Ethernet frames with which a service
// address is probed for and announced: ARP (RFC 826, RFC 5227) for IPv4,
// neighbour discovery (RFC 4861, RFC 4862) for IPv6. It is pure: bytes in,
// bytes out.
package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// MAC is an Ethernet address.
type MAC [6]byte

// Broadcast is the address every station listens to.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// String returns the colon-separated spelling.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Ethernet types.
const (
	EtherARP  = 0x0806
	EtherIPv6 = 0x86dd
)

const (
	etherBytes = 14
	arpBytes   = 28
	arpRequest = 1
	arpReply   = 2
	minFrame   = 60 // without checksum; switches drop shorter ones
)

var arpEthernetIPv4 = []byte{0, 1, 0x08, 0, 6, 4} // hardware, protocol, lengths

// ARPProbe asks who has ip without claiming it: the sender address is zero, so
// no neighbour's cache is disturbed (RFC 5227, 2.1.1).
func ARPProbe(self MAC, ip netip.Addr) []byte {
	return arp(Broadcast, self, arpRequest, netip.IPv4Unspecified(), MAC{}, ip)
}

// ARPAnnounceRequest tells every neighbour, in the request form, that ip is
// at self (RFC 5227, 2.3).
func ARPAnnounceRequest(self MAC, ip netip.Addr) []byte {
	return arp(Broadcast, self, arpRequest, ip, MAC{}, ip)
}

// ARPAnnounceReply says the same in the reply form, which some stations alone
// heed.
func ARPAnnounceReply(self MAC, ip netip.Addr) []byte {
	return arp(Broadcast, self, arpReply, ip, Broadcast, ip)
}

func arp(to, from MAC, op uint16, sender netip.Addr, targetMAC MAC, target netip.Addr) []byte {
	b := make([]byte, 0, minFrame)
	b = append(b, to[:]...)
	b = append(b, from[:]...)
	b = binary.BigEndian.AppendUint16(b, EtherARP)
	b = append(b, arpEthernetIPv4...)
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(b, from[:]...)
	b = append(b, addr4(sender)...)
	b = append(b, targetMAC[:]...)
	b = append(b, addr4(target)...)
	return b[:minFrame]
}

func addr4(a netip.Addr) []byte {
	v := a.Unmap().As4()
	return v[:]
}

// Claim is what a received frame says about an address.
type Claim struct {
	Addr  netip.Addr
	MAC   MAC  // who says so
	Probe bool // it only asks, as a host does before it takes the address
}

// ParseARP reads the claim out of an Ethernet frame with ARP in it. ok is
// false when it is not well-formed ARP for IPv4 or claims nothing.
func ParseARP(b []byte) (c Claim, ok bool) {
	if len(b) < etherBytes+arpBytes || binary.BigEndian.Uint16(b[12:]) != EtherARP {
		return Claim{}, false
	}
	a := b[etherBytes:]
	if !bytes.Equal(a[:6], arpEthernetIPv4) {
		return Claim{}, false
	}
	op := binary.BigEndian.Uint16(a[6:])
	if op != arpRequest && op != arpReply {
		return Claim{}, false
	}
	c.MAC = MAC(a[8:14])
	c.Addr = netip.AddrFrom4([4]byte(a[14:18]))
	if !c.Addr.IsUnspecified() {
		return c, true
	}
	if op != arpRequest {
		return Claim{}, false
	}
	c.Addr, c.Probe = netip.AddrFrom4([4]byte(a[24:28])), true
	if c.Addr.IsUnspecified() {
		return Claim{}, false
	}
	return c, true
}
