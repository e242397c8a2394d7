// Package systemd is the agent as a service of its machine: what the service
// manager is told, what it is to be told by, and the units.
//
//	manager.go  READY, STATUS, STOPPING and more time, over NOTIFY_SOCKET
//	watch.go    the watchdog: petted while every main loop turns round
//	shutdown.go logind holds a shutdown up until the agent has handed over
//	*.in        units and what is installed beside them; DESIGN.md says why they are so
package systemd
