package main

import (
	"fmt"
	"time"

	"hapair/agent/apiv1"
	"hapair/mirror/dirty"
	"hapair/mirror/engine"
	"hapair/mirror/genid"
	"hapair/mirror/state"
)

// sides tells what each node of a split brain has, this one first, and how it
// is kept; none when there is no split brain.
func (c *copies) sides() []apiv1.Side {
	if !c.split() {
		return nil
	}
	here := apiv1.Side{Node: c.self, Role: c.mirror.Role.String(), Token: uint64(c.record.Token)}
	there := apiv1.Side{Node: c.peer, Role: state.RoleUnknown.String(), OnlyBytes: apiv1.UnknownBytes}
	r := c.mirror.Rival
	for i := range c.mirror.Volumes {
		v := &c.mirror.Volumes[i]
		counted := r == nil || i >= len(r.Volumes) || r.Volumes[i].Counted
		here.OnlyBytes += v.DirtyBytes
		here.WasPrimary = here.WasPrimary || v.Elder
		here.Volumes = append(here.Volumes, sideVolume(v.Number, v.DirtyBytes, v.Since, v.Generation, v.Base, counted))
	}
	if r != nil {
		there.Role, there.Token, there.OnlyBytes = r.Role.String(), r.Token, r.DirtyBytes
		for i := range r.Volumes {
			v := &r.Volumes[i]
			there.WasPrimary = there.WasPrimary || v.Elder
			there.Volumes = append(there.Volumes, sideVolume(v.Number, v.DirtyBytes, v.Since, v.Current, v.Base, v.Counted))
		}
	}
	if r != nil && !r.Counted() { // what is dirty is not what either has
		here.OnlyBytes, there.OnlyBytes = apiv1.UnknownBytes, apiv1.UnknownBytes
	}
	here.Since, there.Since = first(here.Volumes), first(there.Volumes)
	here.Keep, there.Keep = c.giveUp(there), c.giveUp(here)
	here.KeepOn, there.KeepOn = there.Node, here.Node
	here.Loses, there.Loses = lost(&there), lost(&here)
	return []apiv1.Side{here, there}
}

func sideVolume(number uint16, dirtyBytes, since int64, current, base uint64, counted bool) apiv1.SideVolume {
	out := apiv1.SideVolume{Number: int(number), DirtyBlocks: (dirtyBytes + dirty.BlockBytes - 1) / dirty.BlockBytes, DirtyBytes: dirtyBytes,
		Counted: counted, Generation: genid.ID(current).String(), Base: genid.ID(base).String()}
	if since > 0 {
		t := time.Unix(since, 0).UTC()
		out.Since = &t
	}
	return out
}

// first is when the first of the volumes was written apart, nil when that is not
// known of any that was.
func first(vs []apiv1.SideVolume) (t *time.Time) {
	for i := range vs {
		if s := vs[i].Since; s != nil && (t == nil || s.Before(*t)) {
			t = s
		}
	}
	return t
}

// lost says what is lost when a side gives up.
func lost(s *apiv1.Side) string {
	if s.OnlyBytes == apiv1.UnknownBytes {
		return "everything that only " + s.Node + " has; how much is not known"
	}
	text := fmt.Sprintf("at most %d bytes that only %s has", s.OnlyBytes, s.Node)
	if s.Since != nil {
		text += ", written since " + s.Since.Format(time.RFC3339)
	}
	return text
}

// giveUp are the commands that give up a side, run there, so that the other one
// is kept.
func (c *copies) giveUp(s apiv1.Side) (commands []string) {
	if s.Role != state.Secondary.String() {
		commands = append(commands, "hactl demote "+c.resource+" --force")
	}
	return append(commands, "hactl connect "+c.resource+" --discard-my-data")
}

// policy is what the policies say of the split brain, "" where they leave it to
// an operator, or none is known.
func (c *copies) policy() string {
	if r := c.mirror.Rival; r != nil && c.split() {
		return r.Because
	}
	return ""
}

// told reports whether the peer is of a release that ends a split brain by what
// the bitmaps of both say.
func told(r *engine.Rival) bool { return r != nil && r.Told }
