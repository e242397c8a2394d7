package main

import (
	"fmt"

	"hapair/agent/apiv1"
	"hapair/mirror/state"
)

// protocolStatus is by which protocol writes are answered now, and why where that
// is not the one this node is configured for.
func (c *copies) protocolStatus() (p state.Protocol, why string) {
	v := &c.mirror
	if !v.Connected || v.Protocol == v.Configured {
		return v.Configured, ""
	}
	if v.PeerProtocols {
		return v.Protocol, fmt.Sprintf("%s is configured for protocol %s, this node for %s: the stricter one counts", c.peer, v.PeerProtocol, v.Configured)
	}
	return v.Protocol, fmt.Sprintf("%s runs a release that knows only protocol C, this node is configured for %s", c.peer, v.Configured)
}

// wouldLose says what is lost if this node goes, or the other one is promoted,
// at this instant; "" where that is nothing.
func (c *copies) wouldLose() string {
	v := &c.mirror
	p, _ := c.protocolStatus()
	switch {
	case p == state.ProtocolC:
	case v.Role == state.Primary && p == state.ProtocolA:
		return fmt.Sprintf("protocol A: if %s took over now without this node, the last %s that were answered would be lost there, at most %s", c.peer, bytesText(v.BehindBytes), bytesText(v.BehindMax))
	case v.Role == state.Primary:
		return fmt.Sprintf("protocol B: %s that were answered are in the memory of %s and not known to be on its disk; they are lost if both nodes are", bytesText(v.BehindBytes), c.peer)
	case p == state.ProtocolA && v.Record.Primary == c.peer:
		return fmt.Sprintf("protocol A: if this node took over without %s, the last writes that %s has answered may be lost, at most %s", c.peer, c.peer, bytesText(v.BehindMax))
	}
	return ""
}

func bytesText(n int64) string { return fmt.Sprintf("%d bytes", n) }

// showProtocol puts it into a status.
func showProtocol(out *apiv1.Resource, c *copies) {
	p, why := c.protocolStatus()
	out.Protocol, out.ProtocolWhy = p.String(), why
}
