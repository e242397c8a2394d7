package vm

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/failover"
	"hapair/test/play"
	"hapair/test/script"
)

// The Primary's clock is put more than a year ahead, the Secondary's a month back,
// while records are written. Nobody minds: leases run by another clock. The Secondary takes
// over, nothing is lost, and the story is told in the order in which it happened.
func TestWrongClocks(t *testing.T) {
	ctx, l := up(t, options(t))
	primary := servesOn(ctx, t, l)
	secondary := script.Peer(primary)
	w, err := l.Write()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	answered(ctx, t, w, 5)
	now := time.Now()
	for node, at := range map[string]time.Time{primary: now.AddDate(1, 2, 0), secondary: now.AddDate(0, -1, 0)} {
		if _, err := l.machines[node].run(ctx, "/bin/busybox", "date", "-s", fmt.Sprintf("@%d", at.Unix())); err != nil {
			t.Fatal(err)
		}
	}
	answered(ctx, t, w, 20)
	if again := servesOn(ctx, t, l); again != primary {
		t.Fatalf("%s is Primary, it was %s", again, primary)
	}
	for _, verb := range []script.Verb{script.PowerOff, script.PowerOn} {
		if err := l.Do(script.Action{Verb: verb, Node: primary}); err != nil {
			t.Fatal(err)
		}
	}
	if now := servesOn(ctx, t, l); now != secondary {
		t.Fatalf("%s is Primary, not %s", now, secondary)
	}
	answered(ctx, t, w, 20)
	w.End()
	l.inOrder(ctx, t, primary, secondary)
	if err := l.Check(ctx, secondary, w.Acks(0)); err != nil {
		t.Error(err)
	}
}

// answered waits for more answers than there are.
func answered(ctx context.Context, t *testing.T, w play.Writer, more int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, shortLimit)
	defer cancel()
	for want := len(w.Acks(0)) + more; len(w.Acks(0)) < want; {
		select {
		case <-ctx.Done():
			t.Fatalf("%d answers, and not %d", len(w.Acks(0)), want)
		case <-time.After(time.Second / slow):
		}
	}
}

// inOrder wants the promotion of the first Primary to be told before that of the
// second, though its clock was ahead by more than a year.
func (l *Lab) inOrder(ctx context.Context, t *testing.T, first, second string) {
	t.Helper()
	var tl apiv1.Timeline
	if err := l.Call(ctx, second, http.MethodGet, apiv1.PathTimeline, nil, &tl); err != nil {
		t.Fatal(err)
	}
	promoted := func(node string) int {
		return slices.IndexFunc(tl.Entries, func(e apiv1.TimelineEntry) bool {
			return e.Node == node && e.Fields["entry"] == string(failover.EntryPromoted)
		})
	}
	if a, b := promoted(first), promoted(second); a < 0 || b < a {
		t.Errorf("%s was promoted in entry %d, %s in %d", first, a, second, b)
	}
}
