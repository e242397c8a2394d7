package fencing

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever must know when nothing strikes any more waits for the devices, also when he
// does not want them any more.
func TestFenceToEnd(t *testing.T) {
	type others func(t *testing.T, r *Room) (await func())
	nobody := func(*testing.T, *Room) func() { return func() {} }
	operator := func(ctx context.Context, r *Room) func() {
		c := later(func() Report { return r.Fence(ctx, "beta", "an operator") })
		return func() { <-c }
	}
	for name, c := range map[string]struct {
		dev    *fake
		others others
		want   Outcome
		after  time.Duration
	}{
		"the device lets itself be broken off": {&fake{name: "a", takes: 10 * time.Second, out: Confirmed}, nobody, Unknown, time.Second},
		"the device goes on":                   {&fake{name: "a", takes: 10 * time.Second, out: Confirmed, deaf: true}, nobody, Confirmed, 10 * time.Second},
		"an operator waits": {&fake{name: "a", takes: 10 * time.Second, out: Confirmed},
			func(t *testing.T, r *Room) func() { return operator(t.Context(), r) }, Confirmed, 10 * time.Second},
		"an operator has just gone": {&fake{name: "a", takes: 10 * time.Second, out: Confirmed, deaf: true}, func(t *testing.T, r *Room) func() {
			ctx, cancel := context.WithCancel(t.Context())
			await := operator(ctx, r)
			cancel()
			await()
			return func() {}
		}, Confirmed, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, began := roomOf(t, one(c.dev)), time.Now()
				await := c.others(t, r)
				ctx, cancel := context.WithCancel(t.Context())
				waits := later(func() Report { return r.FenceToEnd(ctx, "beta", "the arbitration") })
				time.Sleep(time.Second)
				cancel()
				got := <-waits
				if after := time.Since(began); got.Outcome != c.want || after != c.after || c.dev.asked() != 1 || r.Status().Nodes[0].Fence != nil {
					t.Errorf("after %v, the device asked %d times: %+v", after, c.dev.asked(), got)
				}
				await()
			})
		})
	}
}

// An operator's word may be waited for without an end: the end of the room is one.
func TestFenceToEndOfTheRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := roomOf(t, one(Manual()))
		operator := later(func() Report { return r.Fence(t.Context(), "beta", "an operator") })
		ctx, cancel := context.WithCancel(t.Context())
		waits := later(func() Report { return r.FenceToEnd(ctx, "beta", "the arbitration") })
		cancel()
		synctest.Wait()
		select {
		case got := <-waits:
			t.Fatalf("it returned while the fence is under way: %+v", got)
		default:
		}
		r.Close()
		if a, b := <-operator, <-waits; a.Outcome != Unknown || a != b {
			t.Errorf("%+v and %+v", a, b)
		}
	})
}

// A word that is given while a fence is being broken off is for the next one.
func TestConfirmWhileBreakingOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &fake{name: "a", takes: 4 * time.Second, out: Refused, deaf: true}
		r := roomOf(t, one(dev))
		ctx, cancel := context.WithCancel(t.Context())
		first := later(func() Report { return r.Fence(ctx, "beta", "an operator") })
		cancel()
		<-first
		at := time.Now()
		if err := r.Confirm("beta", "eve"); err != nil {
			t.Fatal(err)
		}
		got := r.Fence(t.Context(), "beta", "the arbitration")
		if got.Outcome != Confirmed || got.Device != manualName || !got.Began.Equal(at) || dev.asked() != 1 {
			t.Errorf("%+v; the device was asked %d times", got, dev.asked())
		}
		if got := r.Fence(t.Context(), "beta", "again"); got.Outcome != Refused {
			t.Errorf("a word counts twice: %+v", got)
		}
	})
}
