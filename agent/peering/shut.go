package peering

// Shut closes a path to a node at this end, for a rehearsal: its streams end at
// once, as when the carrier goes, and until Reopen none is dialed over it, not even
// where no other path is left, and none is accepted.
func (n *Net) Shut(node, path string) {
	key := pathKey{node, path}
	n.mu.Lock()
	n.mu.shut[key] = struct{}{}
	n.cancelDials(key)
	n.mu.Unlock()
	n.closeOver(key, "path is shut", nil)
}

// Reopen takes Shut back.
func (n *Net) Reopen(node, path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.shut, pathKey{node, path})
}

// isShut reports a path that was shut; mu is held.
func (n *Net) isShut(node, path string) bool {
	_, shut := n.mu.shut[pathKey{node, path}]
	return shut
}
