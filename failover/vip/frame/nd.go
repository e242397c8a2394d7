package frame

import (
	"encoding/binary"
	"net/netip"
)

const (
	ipv6Bytes    = 40
	icmpv6       = 58
	solicitation = 135
	advert       = 136
	ndBytes      = 24 // ICMPv6 header, flags, target
	hopLimit     = 255
	optTargetMAC = 2

	flagOverride = 0x20000000
)

var allNodes = netip.MustParseAddr("ff02::1")

// SolicitedNode returns the multicast group every holder of ip listens to
// (RFC 4291, 2.7.1), and the Ethernet address of that group.
func SolicitedNode(ip netip.Addr) (netip.Addr, MAC) {
	a := ip.As16()
	g := [16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]}
	return netip.AddrFrom16(g), groupMAC(netip.AddrFrom16(g))
}

func groupMAC(group netip.Addr) MAC {
	a := group.As16()
	return MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// NSProbe asks who has ip without claiming it: the source is unspecified, as
// in duplicate address detection (RFC 4862, 5.4.2).
func NSProbe(self MAC, ip netip.Addr) []byte {
	group, mac := SolicitedNode(ip)
	return nd(mac, self, netip.IPv6Unspecified(), group, ndBody(solicitation, 0, ip))
}

// NAAnnounce tells every neighbour that ip is at self and that what they have
// cached is to be overridden (RFC 4861, 7.2.6).
func NAAnnounce(self MAC, ip netip.Addr) []byte {
	body := ndBody(advert, flagOverride, ip)
	body = append(body, optTargetMAC, 1)
	body = append(body, self[:]...)
	return nd(groupMAC(allNodes), self, ip, allNodes, body)
}

func ndBody(kind byte, flags uint32, target netip.Addr) []byte {
	b := make([]byte, 0, ndBytes+8)
	b = append(b, kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, flags)
	t := target.As16()
	return append(b, t[:]...)
}

func nd(to, from MAC, src, dst netip.Addr, body []byte) []byte {
	binary.BigEndian.PutUint16(body[2:], checksum6(src, dst, body))
	b := make([]byte, 0, etherBytes+ipv6Bytes+len(body))
	b = append(b, to[:]...)
	b = append(b, from[:]...)
	b = binary.BigEndian.AppendUint16(b, EtherIPv6)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, icmpv6, hopLimit)
	s, d := src.As16(), dst.As16()
	b = append(b, s[:]...)
	b = append(b, d[:]...)
	return append(b, body...)
}

// checksum6 is the ICMPv6 checksum over the pseudo header and body, taking the
// checksum field of body as it stands.
func checksum6(src, dst netip.Addr, body []byte) uint16 {
	s, d := src.As16(), dst.As16()
	sum := uint32(len(body)) + icmpv6
	for _, part := range [][]byte{s[:], d[:], body} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
		if len(part)%2 == 1 {
			sum += uint32(part[len(part)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// ParseND reads the claim out of an Ethernet frame with a neighbour
// solicitation or advertisement in it. ok is false when it is not well formed
// (hop limit and checksum included) or claims nothing: an ordinary
// solicitation asks for somebody else's address and is no claim on it.
func ParseND(b []byte) (c Claim, ok bool) {
	if len(b) < etherBytes+ipv6Bytes+ndBytes || binary.BigEndian.Uint16(b[12:]) != EtherIPv6 {
		return Claim{}, false
	}
	ip := b[etherBytes:]
	size := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || ip[6] != icmpv6 || ip[7] != hopLimit || size < ndBytes || size > len(ip)-ipv6Bytes {
		return Claim{}, false
	}
	src, dst := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	body := ip[ipv6Bytes : ipv6Bytes+size]
	if body[1] != 0 || checksum6(src, dst, body) != 0 {
		return Claim{}, false
	}
	copy(c.MAC[:], b[6:12])
	c.Addr = netip.AddrFrom16([16]byte(body[8:24]))
	switch {
	case c.Addr.IsMulticast() || c.Addr.IsUnspecified():
		return Claim{}, false
	case body[0] == advert:
		return ndOption(c, body[ndBytes:])
	case body[0] == solicitation && src.IsUnspecified():
		c.Probe = true
		return c, true
	}
	return Claim{}, false
}

// ndOption takes the sender's own word for its address, where it gives one:
// the frame may have come through a proxy.
func ndOption(c Claim, opts []byte) (Claim, bool) {
	for len(opts) >= 8 {
		size := int(opts[1]) * 8
		if size == 0 || size > len(opts) {
			return Claim{}, false
		}
		if opts[0] == optTargetMAC {
			copy(c.MAC[:], opts[2:8])
		}
		opts = opts[size:]
	}
	return c, true
}
