// Package apiv1 holds the words of the agent's control API, version 1: what
// haagent answers and hactl reads, as JSON over the unix socket.
//
// Fields are only ever added. Names carry their unit (_bytes, _ms, _us, _s).
// States are spelled as package state spells them. A list is never null.
package apiv1
