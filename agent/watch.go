package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hapair/agent/apiv1"
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
		for _, c := range differences(was, now, r.peer) {
			r.a.publish(c.kind, r.name, c.text, c.fields)
		}
		was = now
	}
}

func (r *resource) see(was *seen) *seen {
	v := r.mirror.View()
	ls := r.a.ledger.Status()
	s := &seen{replication: v.Replication, now: r.a.clock()}
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
	}
	return false
}
