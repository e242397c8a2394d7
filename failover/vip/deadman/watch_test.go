package deadman

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"hapair/failover/vip"
)

func at(slot int, prefix string) holding {
	return holding{Held: Held{Resource: "pg", Site: vip.Site{Prefix: netip.MustParsePrefix(prefix), Dev: "eth0"}}, Slot: slot}
}

func TestWatch(t *testing.T) {
	var w watch
	ends := map[int]time.Duration{}
	until := func(slot int) time.Duration { return ends[slot] }
	ask := func(now time.Duration, want []int, wantArmed bool, wantWait time.Duration) {
		t.Helper()
		gone, armed, wait := w.due(now, until)
		if !slices.Equal(gone, want) || armed != wantArmed || wait != wantWait {
			t.Fatalf("at %s: due %v, armed %v, wait %s; want %v, %v, %s", now, gone, armed, wait, want, wantArmed, wantWait)
		}
	}
	ask(0, nil, false, time.Hour)
	w.hold(at(0, "10.0.0.1/24"))
	w.hold(at(1, "10.0.0.2/24"))
	w.hold(at(1, "10.0.0.2/24")) // once is enough
	ends[0], ends[1] = 500*time.Millisecond, 700*time.Millisecond
	ask(0, nil, true, 475*time.Millisecond)
	ends[0] = 600 * time.Millisecond
	ask(475*time.Millisecond, nil, true, 100*time.Millisecond)
	ask(575*time.Millisecond, []int{0}, true, 100*time.Millisecond)
	w.took(0, ends[0])
	ask(576*time.Millisecond, nil, true, again)
	ends[0] = 900 * time.Millisecond // a new lease: armed again
	ask(577*time.Millisecond, nil, true, 98*time.Millisecond)
	w.release(at(0, "10.0.0.1/24"))
	ask(675*time.Millisecond, []int{0}, true, time.Hour)
	w.took(0, ends[1])
	ask(time.Hour, nil, false, again)
	w.release(at(1, "10.0.0.2/24"))
	ask(time.Hour, nil, false, time.Hour)
}
