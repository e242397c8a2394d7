package main

import (
	"bytes"
	"os"
	"slices"

	"go.uber.org/zap"
)

// cpuFile is where the kernel tells of its processors.
const cpuFile = "/proc/cpuinfo"

// warnOfHost says what a virtual machine cannot keep by itself: while its host has
// stopped it, its clock may stand still, and a lease is valid by that clock.
func (a *agent) warnOfHost() {
	if a.witness() {
		return
	}
	text, err := os.ReadFile(cpuFile)
	if err != nil || !virtual(text) {
		return
	}
	a.log.Warn("this is a virtual machine: if its host stops it (a snapshot with memory, a migration, a pause) and it goes on, a Primary here may answer for what was left of its lease beside the one that has taken over meanwhile. "+
		"See docs/safety.md, Virtual machines", zap.Duration("for at most", a.cfg.Timing.Lease))
}

// virtual reports whether a text as in cpuFile is of a virtual machine, as x86 tells;
// others do not.
func virtual(cpuinfo []byte) bool {
	for line := range bytes.Lines(cpuinfo) {
		name, flags, _ := bytes.Cut(line, []byte(":"))
		if string(bytes.TrimSpace(name)) == "flags" {
			return slices.ContainsFunc(bytes.Fields(flags), func(f []byte) bool { return string(f) == "hypervisor" })
		}
	}
	return false
}
