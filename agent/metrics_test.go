package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"hapair/agent/api"
	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/agent/systemd"
)

// Another process has the port of the metrics: that is told, and the agent starts and
// stops all the same.
func TestMetricsOnATakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()
	a := &agent{cfg: &config.Config{RunDir: t.TempDir(), API: config.API{MetricsAddress: address}}, self: "alpha", log: zap.NewNop(), boss: systemd.New(zap.NewNop()), hub: api.NewHub("alpha", time.Now)}
	sub := a.hub.Subscribe(0)
	defer sub.Close()
	if err := a.startAPI(t.Context()); err != nil {
		t.Errorf("no start for want of metrics: %v", err)
	}
	select {
	case e := <-sub.C:
		if e.Kind != apiv1.EventProblem || !strings.Contains(e.Text, "metrics_address: ") || !strings.Contains(e.Text, address) {
			t.Errorf("told %+v", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing is told")
	}
	if err := a.stop(); err != nil {
		t.Error(err)
	}
}
