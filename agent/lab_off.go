//go:build !lab

package main

import "hapair/mirror/block"

// wrapDisk leaves disks as they are: the fault layer is only in lab builds.
var wrapDisk func(path string, d block.Disk) block.Disk
