//go:build race

package store

// Under the race detector a sync.Pool forgets at random.
func init() { poolsForget = true }
