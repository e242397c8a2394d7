package main

import (
	"net"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"hapair/failover/vip"
)

// mayTake judges a conflict over a service address: the peer, paused or hung,
// may still answer for it from its kernel, although its lease has run out and
// this node is Primary now. Anybody else's address is not fought over.
func (r *resource) mayTake(c *vip.ConflictError) bool {
	if c.Probing {
		return false
	}
	if c.Twin { // nobody but the peer has this one
		return true
	}
	peer := (*r.a.where.Load())[r.peer]
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		r.a.log.Warn("the neighbour table cannot be read", zap.Error(err))
		return false
	}
	for _, n := range neighbours {
		for _, ip := range peer {
			if n.IP.Equal(net.IP(ip.AsSlice())) && n.HardwareAddr.String() == c.MAC.String() {
				return true
			}
		}
	}
	return false
}
