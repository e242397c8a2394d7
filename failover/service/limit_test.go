package service

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// hanging is a service each of whose calls waits until it is let go, or, when
// it heeds, until its context ends.
type hanging struct {
	heeds  bool
	let    chan struct{}
	inside int // calls under way
	most   int
}

func (h *hanging) Name() string { return "mount:/srv/pg" }

func (h *hanging) call(ctx context.Context) error {
	h.inside++
	h.most = max(h.most, h.inside)
	defer func() { h.inside-- }()
	if !h.heeds {
		<-h.let
		return nil
	}
	select {
	case <-h.let:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hanging) Start(ctx context.Context) error      { return h.call(ctx) }
func (h *hanging) Stop(ctx context.Context) error       { return h.call(ctx) }
func (h *hanging) StopForced(ctx context.Context) error { return h.call(ctx) }

func (h *hanging) Monitor(ctx context.Context) (bool, error) {
	err := h.call(ctx)
	return err == nil, err
}

func hangingGroup(t *testing.T, h *hanging) *Group {
	t.Helper()
	g, err := NewGroup(GroupConfig{Resource: "pg", Services: []Item{
		{Movable: h, Label: "data", Limits: Limits{Start: time.Minute, Stop: 20 * time.Second, Monitor: 5 * time.Second}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestEveryAttemptIsBounded(t *testing.T) {
	for name, heeds := range map[string]bool{"a call that gives up": true, "one that does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hanging{heeds: heeds, let: make(chan struct{})}
				g := hangingGroup(t, h)
				for what, call := range map[string]func(context.Context) error{"start": g.Start, "stop": g.Stop, "forced stop": g.StopForced} {
					began := time.Now()
					err := call(t.Context())
					if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "mount:data") {
						t.Errorf("%s: %v", what, err)
					}
					if took := time.Since(began); took > time.Minute+20*time.Second+2*heed {
						t.Errorf("%s took %v: more than one attempt and its undoing", what, took)
					}
				}
				began := time.Now()
				if s, err := g.Check(t.Context()); err != nil || s[0].State != Failed || !errors.Is(s[0].Error, ErrTimeout) {
					t.Errorf("check: %+v, %v", s, err)
				}
				if took := time.Since(began); took > 5*time.Second+heed {
					t.Errorf("the check took %v", took)
				}
				close(h.let)
				synctest.Wait()
				if err := g.Start(t.Context()); err != nil {
					t.Errorf("once nothing hangs any more: %v", err)
				}
				if h.most > 1 {
					t.Errorf("%d calls at one time", h.most)
				}
			})
		})
	}
}

func TestStopWaitsForACallThatWasLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hanging{let: make(chan struct{})}
		g := hangingGroup(t, h)
		if err := g.Start(t.Context()); !errors.Is(err, ErrTimeout) {
			t.Fatal(err)
		}
		stopped := make(chan error, 1)
		go func() { stopped <- g.Stop(t.Context()) }()
		synctest.Wait()
		close(h.let)
		if err := <-stopped; err != nil || h.most > 1 {
			t.Errorf("%v, %d calls at one time", err, h.most)
		}
	})
}

func TestLabelIsTheName(t *testing.T) {
	_, a, b, _ := three()
	var told []string
	g, err := NewGroup(GroupConfig{Services: []Item{{Movable: a, Label: "data"}, {Movable: b}}, Progress: func(p Progress) { told = append(told, p.Service) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := g.Status(); s[0].Name != "mount:data" || s[0].Kind != "mount" || s[1].Name != "systemd:b" || told[0] != "mount:data" {
		t.Errorf("%+v, told %q", s, told)
	}
}
