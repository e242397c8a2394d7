package main

import (
	"strings"
	"testing"

	"hapair/mirror/state"
)

// The protocol that counts is told, and why it is another than the one that is set.
func TestProtocolOfAStatus(t *testing.T) {
	for _, c := range []struct {
		connected, knows  bool
		mine, peer, inUse state.Protocol
		want, why         string
	}{
		{false, false, state.ProtocolA, state.ProtocolC, state.ProtocolC, "A", ""},
		{true, true, state.ProtocolA, state.ProtocolA, state.ProtocolA, "A", ""},
		{true, true, state.ProtocolA, state.ProtocolB, state.ProtocolB, "B", "alpha is configured for protocol B, this node for A"},
		{true, false, state.ProtocolB, state.ProtocolC, state.ProtocolC, "C", "alpha runs a release that knows only protocol C"},
	} {
		x := inLine()
		x.mirror.Connected, x.mirror.PeerProtocols = c.connected, c.knows
		x.mirror.Configured, x.mirror.PeerProtocol, x.mirror.Protocol = c.mine, c.peer, c.inUse
		if p, why := x.protocolStatus(); p.String() != c.want || !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%+v: %s, %q", c, p, why)
		}
	}
}

// What a failover now would cost is told in bytes, on both nodes; in C it is nothing.
func TestWhatAFailoverWouldLose(t *testing.T) {
	x := inLine()
	x.mirror.Connected, x.mirror.PeerProtocols, x.mirror.BehindBytes, x.mirror.BehindMax = true, true, 8192, 1<<20
	for _, c := range []struct {
		in   state.Protocol
		role state.Role
		want string
	}{
		{state.ProtocolC, state.Primary, ""},
		{state.ProtocolB, state.Primary, "8192 bytes that were answered are in the memory of alpha"},
		{state.ProtocolA, state.Primary, "the last 8192 bytes that were answered would be lost there, at most 1048576"},
		{state.ProtocolA, state.Secondary, "the last writes that alpha has answered may be lost, at most 1048576 bytes"},
		{state.ProtocolB, state.Secondary, ""},
	} {
		x.mirror.Configured, x.mirror.Protocol, x.mirror.Role, x.mirror.Record.Primary = c.in, c.in, c.role, "alpha"
		if got := x.wouldLose(); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s as %s: %q", c.in, c.role, got)
		}
	}
}
