package fencing

import (
	"slices"
	"strings"
)

// Status returns a copy of what is known. It asks no device.
func (r *Room) Status() Status {
	var s Status
	for name, t := range r.nodes {
		n := NodeStatus{Node: name, Ready: r.Ready(name), Takes: r.Takes(name)}
		for i, l := range t.levels {
			for _, b := range l {
				checked, err := b.usable()
				n.Devices = append(n.Devices, DeviceStatus{Name: b.Name(), Level: i + 1, Checked: checked, Err: err})
			}
		}
		t.look(&n)
		s.Nodes = append(s.Nodes, n)
	}
	slices.SortFunc(s.Nodes, func(a, b NodeStatus) int { return strings.Compare(a.Node, b.Node) })
	r.past.Lock()
	defer r.past.Unlock()
	s.History = slices.Clone(r.past.reports)
	return s
}

// look fills in what changes while a fence goes on.
func (t *target) look(n *NodeStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.Ended = t.ends
	if t.last != nil {
		last := *t.last
		n.Last = &last
	}
	if f := t.run; f != nil {
		n.Fence = &UnderWay{Why: f.why, Began: f.began, Level: f.level, Failed: bounded(strings.Join(f.failed, "; "), reasonMax)}
		if f.level > 0 {
			n.Fence.Waiting = slices.ContainsFunc(t.levels[f.level-1], func(b *bound) bool { return isManual(b.Device) })
		}
	}
}
