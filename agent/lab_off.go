//go:build !lab

package main

import "hapair/mirror/block"

// wrapDisk leaves disks as they are: the fault layer is only in lab builds.
var wrapDisk func(path string, d block.Disk) block.Disk

// These ask the kernel; a lab's node has a kernel only in parts.
var (
	openWatchdog = openKernelWatchdog
	bootID       = kernelBoot
	resetNow     = sysrq
)
