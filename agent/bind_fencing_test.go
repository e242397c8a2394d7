package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"hapair/agent/api"
	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/agent/systemd"
	"hapair/fencing"
	"hapair/heartbeat"
)

// fencingAgent is alpha with devices for beta; it is started as far as fencing goes.
func fencingAgent(t *testing.T, devices string) *agent {
	t.Helper()
	cfg, err := config.Parse("hapair.yaml", []byte("nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}\ndisk: /dev/vdb\narbitration: fencing\nfencing:\n  alpha: [{manual: true}]\n  beta: "+devices+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{cfg: cfg, self: "alpha", log: zap.NewNop(), boss: systemd.New(zap.NewNop()), hub: api.NewHub("alpha", time.Now)}
	nodes, order := addresses(cfg)
	if a.heart, err = heartbeat.New(heartbeat.Config{Cluster: "c", Self: "alpha", Nodes: nodes, Order: order, Port: 7791, Key: make([]byte, 32)}); err != nil {
		t.Fatal(err)
	}
	if err := a.startFencing(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.stop(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func wantRefused(t *testing.T, err error, text string) {
	t.Helper()
	var p *apiv1.Problem
	if !errors.As(err, &p) || !strings.Contains(p.Text, text) {
		t.Errorf("%v, want a refusal with %q", err, text)
	}
}

func TestFencingConfig(t *testing.T) {
	cfg := fencingAgent(t, "[{agent: fence_a}, {agent: fence_b, level: 2, timeout: 3s}, {exec: [/bin/c], level: 2, monitor_interval: 5s}, {manual: true}]").cfg
	got, err := fencingConfig(cfg, "alpha", peerDevices{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range got.Nodes["beta"] {
		var level []string
		for _, b := range l {
			level = append(level, b.Name()+" "+b.Timeout.String()+" "+b.Monitor.String())
		}
		names = append(names, strings.Join(level, ", "))
	}
	want := []string{"fence_a 20s 1m0s", "fence_b 3s 1m0s, exec c 20s 5s", "manual 0s 1m0s"}
	if len(got.Nodes) != 1 || !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

// Devices that would be called alike, as two supplies that one program switches,
// are told apart. An operator is always the same one.
func TestFenceDevicesAreToldApart(t *testing.T) {
	a := fencingAgent(t, "[{exec: [/bin/off, '1']}, {exec: [/bin/off, '2'], level: 1}, {exec: [/bin/off, '3'], level: 2}, {agent: fence_a, level: 2}, {manual: true}, {manual: true}]")
	nodes, _ := a.fencingStatus()
	var names []string
	for _, d := range nodes[0].Devices {
		names = append(names, d.Name)
	}
	if want := []string{"exec off", "exec off #2", "exec off #3", "fence_a", "manual", "manual"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

// hactl fence: the other node, by its devices, and what it comes to.
func TestFenceByHand(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	a := fencingAgent(t, "[{exec: 'echo $HAPAIR_NODE $HAPAIR_WHY > "+mark+"; exit 7'}]")
	b := &backend{a}
	for _, node := range []string{"alpha", "gamma", ""} {
		_, err := b.Fence(t.Context(), apiv1.FenceRequest{Node: node})
		wantRefused(t, err, "is not the other node")
	}
	c, err := b.Fence(t.Context(), apiv1.FenceRequest{Node: "beta", Reason: "it smokes"})
	if err != nil || c.Now != "off" || !strings.Contains(c.Text, "confirmed") {
		t.Errorf("%+v, %v", c, err)
	}
	if text, err := os.ReadFile(mark); err != nil || string(text) != "beta asked by an operator: it smokes\n" {
		t.Errorf("%q, %v", text, err)
	}
	nodes, fences := a.fencingStatus()
	if len(nodes) != 1 || nodes[0].ConfirmedTotal != 1 || nodes[0].TakesMS != 20000 || nodes[0].DelayMS <= 0 || len(fences) != 1 || fences[0].Outcome != apiv1.FenceConfirmed {
		t.Errorf("status: %+v, %+v", nodes, fences)
	}
	_, err = b.FenceConfirm(t.Context(), apiv1.FenceConfirmRequest{Node: "beta", IHaveChecked: true})
	wantRefused(t, err, fencing.ErrNothingToConfirm.Error())
}

func TestFenceFails(t *testing.T) {
	a := fencingAgent(t, "[{exec: 'exit 6'}]")
	b := &backend{a}
	_, err := b.Fence(t.Context(), apiv1.FenceRequest{Node: "beta"})
	wantRefused(t, err, "fence of beta: refused")
	_, err = b.FenceConfirm(t.Context(), apiv1.FenceConfirmRequest{Node: "beta"})
	wantRefused(t, err, "both nodes may write")
	if c, err := b.FenceConfirm(t.Context(), apiv1.FenceConfirmRequest{Node: "beta", IHaveChecked: true}); err != nil || c.Now != "off" {
		t.Errorf("%+v, %v", c, err)
	}
	nodes, _ := a.fencingStatus()
	if nodes[0].RefusedTotal != 1 || nodes[0].ConfirmedTotal != 1 {
		t.Errorf("%+v", nodes[0])
	}
}

// Who does not wait for the end is not told that a rule forbids it: it may still strike.
func TestFenceNotWaitedFor(t *testing.T) {
	a := fencingAgent(t, "[{manual: true}]")
	_, err := (&backend{a}).Fence(t.Context(), apiv1.FenceRequest{Node: "beta", WaitMS: 50})
	var p *apiv1.Problem
	if !errors.As(err, &p) || p.Code != apiv1.CodeTimeout || !strings.Contains(p.Hint, "it may still strike") {
		t.Errorf("%+v, want %s", err, apiv1.CodeTimeout)
	}
}

// Who does not say how long he waits waits as long as the devices may take.
func TestFenceWait(t *testing.T) {
	for _, c := range []struct {
		devices string
		asked   int64
		want    time.Duration
	}{
		{"[{agent: fence_a, timeout: 20s}]", 0, api.DefaultWait},
		{"[{agent: fence_a, timeout: 115s}]", 0, 125 * time.Second},
		{"[{agent: fence_a, timeout: 10m}, {exec: [/bin/c], timeout: 215s}, {manual: true}]", 0, 815*time.Second + fenceSlack},
		{"[{agent: fence_a, timeout: 10m}]", 5000, 5 * time.Second},
	} {
		a := fencingAgent(t, c.devices)
		if got := a.fenceWait(apiv1.FenceRequest{Node: "beta", WaitMS: c.asked}); got != c.want {
			t.Errorf("%s, asked %d ms: %v, want %v", c.devices, c.asked, got, c.want)
		}
	}
}

// Without arbitration by fencing there is none, and it says so.
func TestNoFencing(t *testing.T) {
	cfg, err := config.Parse("hapair.yaml", []byte("nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}\ndisk: /dev/vdb\n"))
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{cfg: cfg, self: "alpha", log: zap.NewNop()}
	if err := a.startFencing(t.Context()); err != nil || a.fence != nil || len(a.stops) != 0 {
		t.Fatalf("%v: %v", err, a.fence)
	}
	b := &backend{a}
	_, err = b.Fence(t.Context(), apiv1.FenceRequest{Node: "beta"})
	wantRefused(t, err, "arbitration is manual")
	_, err = b.FenceConfirm(t.Context(), apiv1.FenceConfirmRequest{Node: "beta", IHaveChecked: true})
	wantRefused(t, err, "arbitration is manual")
	if nodes, fences := a.fencingStatus(); nodes != nil || fences != nil {
		t.Errorf("%v %v", nodes, fences)
	}
	a.metAgain(heartbeat.Snapshot{})
}
