//go:build lab

package main

import (
	"os"
	"time"

	"hapair/mirror/block"
	"hapair/test/fault"
)

// labCacheVariable switches the fault layer of a lab build on.
const labCacheVariable = "HAPAIR_LAB_VOLATILE_CACHE"

// labEarly is the chance of a write to reach the disk before it is flushed.
const labEarly = 0.3

// wrapDisk, in lab builds, puts a volatile write cache in this process's
// memory before every disk: killing the process is a power cut. Above it, a disk
// fails as it is told to.
var wrapDisk = labWrap()

func labWrap() func(string, block.Disk) block.Disk {
	if os.Getenv(labCacheVariable) == "" {
		return nil
	}
	faults := os.Getenv(labFaultsVariable) != ""
	var rules labFaults
	return func(path string, d block.Disk) block.Disk {
		d = fault.NewCache(d, fault.CacheOptions{Seed: uint64(time.Now().UnixNano()), Early: labEarly})
		if faults {
			d = rules.wrap(path, d)
		}
		return d
	}
}
