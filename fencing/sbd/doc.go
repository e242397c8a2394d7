// Package sbd fences by a small disk that both nodes see, as sbd's poison pills do:
// each node reads a slot of its own there, pets its watchdog while it finds nothing
// in it, and goes down when it finds a pill. Who wrote one, and waits for long enough, knows
// that the node is off, whatever the network does.
//
//	record.go  what is on the disk
//	disk.go    the disk
//	create.go  a new one, and a look at one
//	reader.go  the node that reads
//	device.go  the node that writes: a fence device
//
// That a pill works takes a watchdog that is armed. So each slot says whether it is,
// with which time-out and in which life of the node, and that is agreed before it is relied
// on: the writer compares that life with the one that it has met. DESIGN.md, in the
// room, has the reckoning.
package sbd
