//go:build race

package main

// Under the race detector a sync.Pool forgets at random.
func init() { poolsForget = true }
