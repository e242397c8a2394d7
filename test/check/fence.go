package check

import "fmt"

// Fence is the fence law as far as one node shows it: tokens never go back, and
// who has seen a higher one takes nothing under a lower one.
type Fence struct {
	node  string
	told  uint64 // highest tenure the node was told of in this life
	seen  uint64 // highest it has said
	token uint64 // of the record it holds
}

// NewFence watches a node from its start on.
func NewFence(node string) *Fence { return &Fence{node: node} }

// Told records that the node heard of a tenure.
func (f *Fence) Told(tenure uint64) { f.told = max(f.told, tenure) }

// Says judges what the node shows of itself.
func (f *Fence) Says(seen, token uint64) error {
	switch {
	case seen < f.seen:
		return fmt.Errorf("fence law: the tenure %s has seen went back from %d to %d", f.node, f.seen, seen)
	case token < f.token:
		return fmt.Errorf("fence law: the record %s holds went back from token %d to %d", f.node, f.token, token)
	case seen < f.told:
		return fmt.Errorf("fence law: %s was told of tenure %d and says it has seen %d", f.node, f.told, seen)
	}
	f.seen, f.token = seen, token
	return nil
}

// Takes judges a change of the peer that the node carries out.
func (f *Fence) Takes(token uint64, what string) error {
	if token < f.told {
		return fmt.Errorf("fence law: %s takes %s under token %d, it was told of %d", f.node, what, token, f.told)
	}
	return nil
}
