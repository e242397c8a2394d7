package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/failover"
	"hapair/failover/plan"
	"hapair/mirror/front"
	"hapair/mirror/state"
)

func TestDifferences(t *testing.T) {
	up, behind := []state.Disk{state.UpToDate}, []state.Disk{state.Outdated}
	for name, c := range map[string]struct {
		was, now seen
		want     []string
	}{
		"nothing":     {seen{disks: up, replication: state.Established}, seen{disks: up, replication: state.Established}, nil},
		"disk":        {seen{disks: up}, seen{disks: behind}, []string{"disk disk of volume 0: was UpToDate, now Outdated"}},
		"begun":       {seen{replication: state.Off}, seen{replication: state.SyncSource}, []string{"resync resync to beta has begun: SyncSource"}},
		"paused":      {seen{replication: state.SyncTarget}, seen{replication: state.PausedSyncT}, []string{"resync resync from beta: was SyncTarget, now PausedSyncT"}},
		"complete":    {seen{replication: state.SyncTarget}, seen{replication: state.Established}, nil},
		"failed":      {seen{disks: up}, seen{disks: []state.Disk{state.Failed}}, nil},
		"broken off":  {seen{replication: state.SyncSource}, seen{replication: state.Off}, []string{"resync resync to beta is broken off: was SyncSource, now Off"}},
		"connected":   {seen{replication: state.Off}, seen{replication: state.Established}, nil},
		"frozen":      {seen{}, seen{frozen: []string{"no lease", "deposed"}}, []string{"frozen I/O is frozen: no lease; deposed"}},
		"still":       {seen{frozen: []string{"no lease"}}, seen{frozen: []string{"deposed"}}, nil},
		"thawed":      {seen{frozen: []string{"no lease"}, frozenAt: time.Second}, seen{now: 3 * time.Second}, []string{"frozen I/O is not frozen any more, after 2s"}},
		"all at once": {seen{disks: up, replication: state.SyncSource}, seen{disks: behind, frozen: []string{"x"}}, []string{"disk disk of volume 0: was UpToDate, now Outdated", "resync resync to beta is broken off: was SyncSource, now Off", "frozen I/O is frozen: x"}},
	} {
		var got []string
		for _, d := range differences(&c.was, &c.now, "beta") {
			got = append(got, d.kind+" "+d.text)
			if d.fields["was"] == "" || d.fields["now"] == "" {
				t.Errorf("%s: fields %v", name, d.fields)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

func TestInOrder(t *testing.T) {
	failing := plan.View{Now: time.Minute, Settings: plan.Defaults(), Self: plan.Node{Role: state.Secondary, Failed: plan.Failures{Count: 3, Limit: 3, At: 30 * time.Second, Until: 10 * time.Minute}}}
	past := failing
	past.Now = time.Hour
	for name, c := range map[string]struct {
		st   failover.Status
		want bool
	}{
		"Primary":         {failover.Status{Decision: plan.Decision{Code: plan.CodeSettled}, View: plan.View{Self: plan.Node{Role: state.Primary}}}, true},
		"Secondary":       {failover.Status{Decision: plan.Decision{Code: plan.CodeHolder}, View: plan.View{Self: plan.Node{Role: state.Secondary}}}, true},
		"not yet demoted": {failover.Status{Decision: plan.Decision{Code: plan.CodeHolder}, View: plan.View{Self: plan.Node{Role: state.Primary}}}, false},
		"no quorum":       {failover.Status{Decision: plan.Decision{Code: plan.CodeNoQuorum}}, false},
		"failed here":     {failover.Status{Decision: plan.Decision{Code: plan.CodeHolder}, View: failing}, false},
		"long ago":        {failover.Status{Decision: plan.Decision{Code: plan.CodeHolder}, View: past}, true},
	} {
		if got := inOrder(&c.st); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestProblemsAreSettled(t *testing.T) {
	var p problems
	for i, name := range []string{"pg", "www", ""} {
		p.put(&apiv1.ProblemAt{Time: time.Unix(int64(i), 0), Resource: name})
	}
	p.settle("")
	if x := p.last("", true); x == nil || x.Resource != "www" {
		t.Errorf("%+v", x)
	}
	p.settle("www")
	if p.last("www", false) != nil || p.last("pg", false) == nil {
		t.Error("the wrong one is settled")
	}
}

// A front end that starts or stops answers late: a status does not wait for it.
func TestOpenByDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		o := &openBy{log: zap.NewNop(), own: map[front.Holder]bool{front.Mounted("/srv/pg"): true}, ask: func() ([][]front.Holder, error) {
			<-let
			return [][]front.Holder{{front.Mounted("/srv/pg"), {PID: 7, Command: "vim"}}}, nil
		}}
		began := time.Now()
		if got := o.all(); got != nil || time.Since(began) > openByWait {
			t.Errorf("%v after %v", got, time.Since(began))
		}
		close(let)
		synctest.Wait()
		if got := o.all(); len(got) != 1 || len(got[0]) != 1 || got[0][0] != "vim (pid 7)" {
			t.Errorf("%v", got)
		}
	})
}
