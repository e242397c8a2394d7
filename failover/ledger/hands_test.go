package ledger

import "testing"

// A hand-back is told to every voter as they are now: what a witness acknowledged
// before it went does not count for the node that has not heard of it.
func TestHandBackIsToldToAllVoters(t *testing.T) {
	h := &hands{releases: map[string]*release{"r": {tenure: 3, asked: map[string]bool{}, acked: make(chan struct{})}}}
	it := leaseItem{Resource: "r", Tenure: 3, Release: true}
	h.acknowledged("w", it, []string{"a", "b", "w"})
	h.acknowledged("a", it, []string{"a", "b"})
	if h.releases["r"] == nil {
		t.Fatal("b has not acknowledged, and is not asked any more")
	}
	h.acknowledged("b", it, []string{"a", "b"})
	if h.releases["r"] != nil {
		t.Error("all have acknowledged, and it goes on")
	}
}
