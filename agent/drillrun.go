package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/recorder/story"
	"hapair/failover"
	"hapair/failover/plan"
	"hapair/fencing"
	"hapair/mirror"
	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// run strikes, measures, and waits until all is as before.
func (d *drill) run() (apiv1.DrillReport, error) {
	r := d.r
	patience := drillPatience
	if d.power() {
		patience = outletPatience
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.lasts+patience)
	defer cancel()
	rep := apiv1.DrillReport{Resource: r.name, Kind: d.kind, Node: r.a.self, Victim: d.victim, Plan: d.plan(), Done: true, ResolutionMS: millis(probeEvery)}
	r.a.event(apiv1.EventOperator, r.name, fmt.Sprintf("asked: drill %s", d.kind))
	from := r.a.record.Stamp()
	p := startProbe(ctx, r, d.victim == "")
	defer p.end()
	struck := time.Now()
	if d.power() { // it goes while the devices are asked
		p.struck(struck)
	}
	told, err := d.strike(ctx)
	if err != nil {
		return rep, err
	}
	if !d.power() {
		struck = time.Now()
		p.struck(struck)
	}
	rep.Began = struck.UTC()
	rep.BehindBytes = told.BehindBytes
	rep.Restored = d.restored(ctx, struck)
	rep.RestoredMS = time.Since(struck).Milliseconds()
	first, longest, answered := p.result()
	rep.RTOMS, rep.Probes = millis(longest), answered
	switch {
	case answered == 0:
		rep.RTOMS = -1
	case d.victim != "":
		rep.RTOMS = millis(first)
	}
	rep.Steps = r.a.stepsSince(from, r.name)
	rep.Parts = partsOf(rep.Steps, r.a.self, r.name)
	d.say(&rep, told)
	return rep, nil
}

// errDrilled is what a disk answers in a drill.
var errDrilled = fmt.Errorf("a drill has it fail: %w", block.ErrIO)

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// strike has the failure happen, at both ends where it has two, and returns when
// it has.
func (d *drill) strike(ctx context.Context) (drillAnswer, error) {
	if d.disk() {
		told := d.r.drillAnswer()
		d.r.a.event(apiv1.EventOperator, d.r.name, fmt.Sprintf("drill: the disks here answer with errors for %v", d.lasts))
		d.r.mirror.FailDisks(errDrilled)
		return told, nil
	}
	if d.power() {
		return drillAnswer{Protocol: d.r.mirror.View().Protocol.String()}, d.switchOff(ctx)
	}
	q := drillQuestion{Resource: d.r.name, Path: d.path, LastsMS: d.lasts.Milliseconds(), Agent: d.kind == apiv1.DrillAgent, Pause: d.kind == apiv1.DrillPause}
	var answer drillAnswer
	ask, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	err := d.r.a.exchange(ask, d.r.peer, drillPurpose, q, &answer)
	switch {
	case unknownThere(err):
		return answer, &apiv1.Problem{Code: apiv1.CodeRefused, Text: d.r.peer + " runs a release that knows no drills", Hint: "upgrade it first"}
	case err != nil:
		return answer, fmt.Errorf("ask %s: %w", d.r.peer, err)
	case answer.Refused != nil:
		return answer, answer.Refused
	}
	if d.path != "" {
		d.r.a.closePath(d.r.peer, d.path, d.lasts)
		answer = d.r.drillAnswer()
	}
	return answer, nil
}

// switchOff has the fence devices of the other node switch it off.
func (d *drill) switchOff(ctx context.Context) error {
	why := "drill power"
	d.r.a.fenceCounts(why)
	rep := d.r.a.fence.Fence(ctx, d.victim, why)
	if rep.Outcome != fencing.Confirmed {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("fence of %s: %s: %s", d.victim, rep.Outcome, rep.Reason), Hint: "hactl status"}
	}
	return nil
}

// restored waits until the failure is over and both copies are current; false
// when that takes too long.
func (d *drill) restored(ctx context.Context, struck time.Time) bool {
	t := time.NewTicker(drillLook)
	defer t.Stop()
	for {
		if time.Since(struck) >= d.lasts {
			if d.disk() {
				d.attachAgain(ctx)
			}
			if d.asBefore() {
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
		}
	}
}

// attachAgain lets the disks be well, and takes those into use that have been given
// up; while the ledger is asked, or a session begins, that may have to be tried again.
func (d *drill) attachAgain(ctx context.Context) {
	d.r.mirror.FailDisks(nil)
	failed := func(v engine.VolumeView) bool { return v.Disk == state.Failed }
	if !slices.ContainsFunc(d.r.mirror.View().Volumes, failed) {
		return
	}
	if err := d.r.mirror.Attach(ctx, mirror.AttachOptions{}); err != nil {
		d.r.a.log.Info("drill: the disks are not attached yet", zap.Error(err))
	}
}

// asBefore: what a drill wants at its beginning, whoever is Primary now. A victim
// has to have died first.
func (d *drill) asBefore() bool {
	s := d.sight()
	up := func(v engine.VolumeView) bool { return v.Disk == state.UpToDate && v.PeerDisk == state.UpToDate }
	for i := range s.mirror.Volumes {
		if !up(s.mirror.Volumes[i]) {
			return false
		}
	}
	served := s.primary == d.r.a.self && (!s.hasServices || s.services == plan.Started)
	return served && s.mirror.State == state.Connected && s.mirror.Replication == state.Established && len(s.inSync) == 2 &&
		s.peerHeard && len(s.pathsInTheWay()) == 0
}

// say puts it in words.
func (d *drill) say(rep *apiv1.DrillReport, told drillAnswer) {
	switch {
	case d.power():
		rep.Measured = fmt.Sprintf("from the order to switch %s off to the first flush that was answered on %s", d.victim, rep.Node)
		rep.Lost = fmt.Sprintf("not counted, for a drill writes no data; with protocol %s what was answered on %s is durable on %s", told.Protocol, d.victim, rep.Node)
		if told.Protocol != "C" {
			rep.Lost = fmt.Sprintf("not counted, for a drill writes no data; with protocol %s it is what %s had answered and %s had not got", told.Protocol, d.victim, rep.Node)
		}
	case d.victim != "":
		rep.Measured = fmt.Sprintf("from the last word of %s's agent to the first flush that was answered on %s", d.victim, rep.Node)
		rep.Lost = fmt.Sprintf("not counted, for a drill writes no data: protocol %s, and %d bytes were answered on %s and not known to be on the disk of %s when it struck", told.Protocol, told.BehindBytes, d.victim, rep.Node)
	default:
		rep.Measured = "the longest time between two answered flushes on " + rep.Node
		rep.Lost = "nothing: the Primary stayed, and answered what it had accepted"
	}
	rep.Text = fmt.Sprintf("drill %s of %s: nothing was answered for %.0f ms", d.kind, d.r.name, rep.RTOMS)
	if rep.RTOMS < 0 {
		rep.Text = fmt.Sprintf("drill %s of %s: nothing was answered any more", d.kind, d.r.name)
	}
	if rep.Restored {
		rep.Text += fmt.Sprintf("; all was as before after %.1f s", float64(rep.RestoredMS)/1000)
	} else {
		rep.Text += fmt.Sprintf("; NOT as before after %.1f s, see hactl status", float64(rep.RestoredMS)/1000)
	}
}

// partsOf takes from what was recorded how long each step of the last promotion on
// a node took.
func partsOf(steps []apiv1.TimelineEntry, node, resource string) (parts []apiv1.DrillPart) {
	for i := range slices.Backward(steps) {
		e := &steps[i]
		if e.Node != node || e.Resource != resource || e.Fields["entry"] != string(failover.EntryPromoted) {
			continue
		}
		for _, name := range []string{"detect", "ledger", "lease", "mirror", "services"} {
			if took, err := time.ParseDuration(e.Fields["took_"+name]); err == nil {
				parts = append(parts, apiv1.DrillPart{Name: name, MS: millis(took)})
			}
		}
		return parts
	}
	return nil
}

// stepsSince is what all nodes recorded of a resource, and of none.
func (a *agent) stepsSince(from uint64, resource string) []apiv1.TimelineEntry {
	s := a.record.Look()
	s.Entries = slices.DeleteFunc(s.Entries, func(e story.Entry) bool { return uint64(e.Stamp) <= from })
	t := timelineOf(&s, apiv1.TimelineQuery{Resource: resource}, time.Now())
	return t.Entries
}

// probe asks again and again whether anything is answered.
type probe struct {
	cancel context.CancelFunc
	ended  chan struct{}

	mu       sync.Mutex
	last     time.Time     // of the last answer, or of the strike
	first    time.Duration // to the first answer after the strike
	longest  time.Duration // between two, or to the first
	answered int           // since the strike
	counting bool          // it has struck, or answers came before
}

// startProbe probes until ctx ends. Where here is set this node answers before
// the strike, and the time to the first answer after it counts from the last before.
func startProbe(ctx context.Context, r *resource, here bool) *probe {
	ctx, cancel := context.WithCancel(ctx)
	p := &probe{cancel: cancel, ended: make(chan struct{}), counting: here}
	go func() {
		defer close(p.ended)
		t := time.NewTicker(probeEvery)
		defer t.Stop()
		for {
			if err := r.mirror.Probe(ctx); err == nil {
				p.note(time.Now())
			}
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	}()
	return p
}

func (p *probe) note(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsZero() && p.counting {
		p.longest = max(p.longest, now.Sub(p.last))
	}
	if p.answered++; p.answered == 1 {
		p.first = p.longest
	}
	p.last = now
}

// struck begins the count; what came before is only the last answer.
func (p *probe) struck(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longest, p.answered = 0, 0
	if !p.counting {
		p.counting, p.last = true, now
	}
}

// result is the time to the first answer after the strike, the longest without
// one, and how many came.
func (p *probe) result() (first, longest time.Duration, answered int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first, p.longest, p.answered
}

func (p *probe) end() {
	p.cancel()
	<-p.ended
}
