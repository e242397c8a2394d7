// Package fuse offers a volume as a loop device over a single file that this
// process serves through FUSE: a real block device on any kernel, in
// containers too, where neither ublk nor nbd is at hand.
//
// The way of a request: application, block layer, loop device (direct I/O),
// FUSE file, /dev/fuse, Handler; the completion writes the answer to /dev/fuse
// itself. See DESIGN.md for what can block on what.
//
//	abi.go     the part of the FUSE protocol one file needs
//	serve.go   readers take requests off /dev/fuse
//	call.go    a request in flight, and its answer
//	mount.go   the mount, and what a killed predecessor left of it
//	loop.go    the loop device
//	fuse.go    start; stop.go: stop and abort
package fuse
