package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hapair/agent/apiv1"
	"hapair/failover"
	"hapair/failover/plan"
	"hapair/failover/service"
	"hapair/mirror/state"
)

// watchEvery is how often a resource is looked at when nothing was told: a
// lease runs out without a word.
const watchEvery = 500 * time.Millisecond

// seen is what the events are made from, by comparing two looks.
type seen struct {
	disks       []state.Disk
	replication state.Replication
	frozen      []string
	frozenAt    time.Duration
	now         time.Duration
	ledgerWell  bool
	unequal     bool // what is known to differ has not been repaired
}

// change is one event to be.
type change struct {
	kind, text string
	fields     map[string]string
}

// watch publishes what became different of a resource's disks, resync and I/O,
// until ctx ends.
func (r *resource) watch(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	was := r.see(nil)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.look:
		case <-t.C:
		}
		now := r.see(was)
		r.settleProblems(now)
		for _, c := range differences(was, now, r.peer) {
			r.a.publish(c.kind, r.name, c.text, c.fields)
		}
		was = now
	}
}

func (r *resource) see(was *seen) *seen {
	v := r.mirror.View()
	ls := r.a.ledger.Status()
	s := &seen{replication: v.Replication, now: r.a.clock(), ledgerWell: ls.Quorum && ls.SplitBrain == "" && ls.Err == nil}
	s.unequal = r.unequal(&v) != ""
	for i := range v.Volumes {
		s.disks = append(s.disks, v.Volumes[i].Disk)
	}
	s.frozen = frozen(&v, r.a.ledger.Lease(r.name).Valid(s.now), &ls)
	s.frozenAt = s.now
	if was != nil && len(was.frozen) > 0 {
		s.frozenAt = was.frozenAt
	}
	return s
}

// settleProblems takes the newest problem out of the status once there is none
// any more. It stays among the events.
func (r *resource) settleProblems(s *seen) {
	if s.ledgerWell {
		r.a.problems.settle("")
	}
	if st := r.control.Status(); s.well() && inOrder(&st) && !r.serviceFailed() {
		r.a.problems.settle(r.name)
	}
}

func (r *resource) serviceFailed() bool {
	return r.group != nil && slices.ContainsFunc(r.group.Status(), func(s service.Status) bool { return s.State == service.Failed || s.Error != nil })
}

func (s *seen) well() bool {
	down := func(d state.Disk) bool { return d != state.UpToDate }
	return s.replication == state.Established && !s.unequal && len(s.frozen) == 0 && !slices.ContainsFunc(s.disks, down)
}

// inOrder reports whether the failover rests, with nothing that it remembers
// against this node.
func inOrder(st *failover.Status) bool {
	v := &st.View
	rests := st.Decision.Code == plan.CodeSettled || st.Decision.Code == plan.CodeHolder && v.Self.Role == state.Secondary
	return rests && !v.Self.Failed.Remembered(v.Now)
}

// differences says what happened between two looks. That a disk failed and that
// a resync is complete the mirror tells itself, with what only it knows.
func differences(was, now *seen, peer string) (out []change) {
	for i, d := range now.disks {
		if i < len(was.disks) && was.disks[i] != d && d != state.Failed {
			out = append(out, change{apiv1.EventDisk, fmt.Sprintf("disk of volume %d: was %s, now %s", i, was.disks[i], d),
				map[string]string{"volume": fmt.Sprint(i), "was": was.disks[i].String(), "now": d.String()}})
		}
	}
	if text := resyncText(was, now, peer); text != "" {
		out = append(out, change{apiv1.EventResync, text, map[string]string{"was": was.replication.String(), "now": now.replication.String()}})
	}
	switch {
	case len(was.frozen) == 0 && len(now.frozen) > 0:
		why := strings.Join(now.frozen, "; ")
		out = append(out, change{apiv1.EventFrozen, "I/O is frozen: " + why, map[string]string{"was": "running", "now": "frozen", "because": why}})
	case len(was.frozen) > 0 && len(now.frozen) == 0:
		took := (now.now - was.frozenAt).Round(time.Millisecond)
		out = append(out, change{apiv1.EventFrozen, fmt.Sprintf("I/O is not frozen any more, after %v", took),
			map[string]string{"was": "frozen", "now": "running", "took": took.String()}})
	}
	return out
}

// resyncText tells the beginning, the pauses and the breaking off of a resync.
func resyncText(was, now *seen, peer string) string {
	before, after := syncing(was.replication), syncing(now.replication)
	way, at := "to "+peer, now.replication
	if !after {
		at = was.replication
	}
	if at == state.SyncTarget || at == state.PausedSyncT {
		way = "from " + peer
	}
	switch {
	case was.replication == now.replication, !before && !after, !after && now.replication == state.Established:
		return ""
	case !before:
		return fmt.Sprintf("resync %s has begun: %s", way, now.replication)
	case after:
		return fmt.Sprintf("resync %s: was %s, now %s", way, was.replication, now.replication)
	}
	return fmt.Sprintf("resync %s is broken off: was %s, now %s", way, was.replication, now.replication)
}

func syncing(r state.Replication) bool {
	switch r {
	case state.SyncSource, state.SyncTarget, state.PausedSyncS, state.PausedSyncT:
		return true
	default: // no session, or both copies are equal
		return false
	}
}
