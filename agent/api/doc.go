// Package api serves the agent's control API: JSON over HTTP on a unix socket,
// versioned under /v1/, with server-sent events and Prometheus metrics.
//
// Whoever can open the socket may look; changes are for uid 0 and, when one is
// configured, for the members of the admin group. The kernel says who calls
// (SO_PEERCRED, SO_PEERGROUPS). Every answer that is not a success carries an
// apiv1.Problem.
//
// What the API shows and does comes from a [Backend], which the agent fills.
// The package runs no goroutine of its own beside net/http's one per
// connection; an event stream is served by its connection's goroutine, woken by
// the hub, a timer for keep-alive, or the end of the request.
package api
