package fencing

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Devices are told since when the two have met, and are monitored as soon as they do:
// what they have said of the node before may be old.
func TestMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &fake{name: "a", out: Confirmed}
		r := roomOf(t, one(dev))
		ctx, cancel := context.WithCancel(t.Context())
		ended := later(func() bool { r.Run(ctx); return true })
		var want []time.Time
		fence := func(met time.Time) {
			t.Helper()
			want = append(want, met)
			if r.Fence(t.Context(), "beta", "x"); !slices.Equal(dev.met, want) {
				t.Errorf("told %v, want %v", dev.met, want)
			}
		}
		monitors := func(n int) {
			t.Helper()
			synctest.Wait()
			if dev.monitors != n {
				t.Errorf("monitored %d times, want %d", dev.monitors, n)
			}
		}
		fence(time.Time{})
		monitors(1)
		time.Sleep(10 * time.Second)
		first := time.Now()
		r.Met("beta")
		monitors(2)
		time.Sleep(10 * time.Second)
		r.Met("beta") // it is heard all the time
		fence(first)
		monitors(2)
		r.Parted("beta")
		fence(first)
		second := time.Now()
		r.Met("beta")
		r.Met("gamma")
		r.Parted("gamma")
		monitors(3)
		fence(second)
		cancel()
		<-ended
	})
}
