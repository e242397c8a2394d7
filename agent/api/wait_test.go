package api

import (
	"testing"
	"time"

	"hapair/agent/apiv1"
)

// A fence, or a stop of services, that does not say how long is bounded by who knows how
// long that takes.
func TestDefaultWait(t *testing.T) {
	for _, c := range []struct {
		req  any
		want time.Duration
	}{
		{apiv1.PromoteRequest{}, DefaultWait},
		{apiv1.PromoteRequest{WaitMS: 5000}, 5 * time.Second},
		{apiv1.FenceRequest{}, MaxWait},
		{apiv1.FenceRequest{WaitMS: 5000}, 5 * time.Second},
		{apiv1.SwitchoverRequest{}, MaxWait},
		{apiv1.DemoteRequest{}, MaxWait},
		{apiv1.DemoteRequest{WaitMS: 5000}, 5 * time.Second},
		{apiv1.ConnectRequest{}, DefaultWait},
	} {
		if got, p := waitOf(c.req); p != nil || got != c.want {
			t.Errorf("%T%+v: %v, %v; want %v", c.req, c.req, got, p, c.want)
		}
	}
}
