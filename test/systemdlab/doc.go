// Package systemdlab boots machines with a systemd of their own, in namespaces, and
// sees that hapair is a well-behaved service there: a pair, its witness and a client,
// with what make install installs. It needs root, and HAPAIR_SYSTEMD=1 (make
// systemd-lab); what it makes it takes away.
//
//	boot.sh        process 1 of a machine
//	lab_test.go    machines, their networks, commands on them
//	box_test.go    the stories
package systemdlab
