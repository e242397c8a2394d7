// Package bubble runs the whole cluster but kernel and disks on virtual time,
// inside testing/synctest: three ledgers (hashicorp/raft), three heartbeats
// (memberlist), two controllers and two mirrors, on a network and on disks in
// memory that can be cut, paused, hung and robbed of their power. Applications
// write, read and flush all the time, and remember what they were told.
//
//	fabric.go  gossip.go  the network
//	disk.go               drives with a volatile cache
//	door.go  session.go   the front end, and the applications on it
//	book.go               what the applications were told, judged
//	boot.go  hands.go     one run of an agent, as package agent wires it
//	world.go watch.go     the cluster, and what must hold at every moment
//	loss.go               which losses are one fault too many
//	chaos.go              faults by seed
//
// One virtual minute takes less than a second. The order in which goroutines run
// within one instant is the scheduler's: a seed gives the same faults at the
// same times, not the same run to the last step.
package bubble
