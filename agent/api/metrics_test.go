package api_test

import (
	"strings"
	"testing"

	"hapair/agent/api"
	"hapair/agent/api/apitest"
	"hapair/agent/apiv1"
)

// Two samples that nothing tells apart cost the second of them, not all metrics.
func TestMetricsSaidTwice(t *testing.T) {
	w := newWorld(t, api.Options{})
	st := apitest.Sample()
	st.Fencing = []apiv1.Fencing{{Node: "beta", Devices: []apiv1.FenceDevice{{Name: "manual", Level: 1, Usable: true}, {Name: "manual", Level: 1, Usable: true}}}}
	w.SetStatus(st)
	code, data := w.do(t, "GET", "/metrics", "")
	for _, want := range []string{`hapair_up 1`, `hapair_resource_primary{resource="pg"} 1`, `hapair_fence_device_usable{device="manual",level="1",member="beta"} 1`} {
		if code != 200 || strings.Count(string(data), want+"\n") != 1 {
			t.Errorf("not one %s in %d %s", want, code, data)
		}
	}
}
