package service

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A Stop does not wait for a check that hangs. What that had no answer of stays as it
// was, and is no failure.
func TestStopEndsACheck(t *testing.T) {
	for name, heeds := range map[string]bool{"a call that gives up": true, "one that does not": false} {
		for how, stop := range map[string]func(*Group, context.Context) error{"stop": (*Group).Stop, "forced stop": (*Group).StopForced} {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, a, b, _ := three()
					h := &asked{fake: *a, hanging: hanging{heeds: heeds, let: make(chan struct{})}}
					g := group(t, GroupConfig{}, h, b)
					if err := g.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
					checked := make(chan []Status, 1)
					go func() {
						found, err := g.Check(t.Context())
						if err != nil {
							t.Error(err)
						}
						checked <- found
					}()
					synctest.Wait()
					began := time.Now()
					time.AfterFunc(time.Second, func() { close(h.hanging.let) })
					if err := stop(g, t.Context()); err != nil {
						t.Error(err)
					}
					if took := time.Since(began); took > time.Second {
						t.Errorf("the stop took %v", took)
					}
					if b.stopped != began {
						t.Errorf("what nobody asks was stopped after %v", b.stopped.Sub(began))
					}
					if found := <-checked; found[0].State == Unknown || found[0].Error != nil {
						t.Errorf("%+v", found[0])
					}
					for _, s := range g.Status() {
						if s.State != Stopped || s.Error != nil {
							t.Errorf("%+v", s)
						}
					}
				})
			})
		}
	}
}

// asked is a service that hangs when it is asked whether it runs.
type asked struct {
	fake
	hanging hanging
}

func (s *asked) Monitor(ctx context.Context) (bool, error) {
	err := s.hanging.call(ctx)
	return err == nil, err
}

// A check whose own time is over says so, and leaves what had no answer as it was.
func TestACheckThatIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _, _ := three()
		h := &asked{fake: *a, hanging: hanging{heeds: true, let: make(chan struct{})}}
		g := group(t, GroupConfig{}, h)
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Check(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if s := g.Status()[0]; s.State != Running || s.Error != nil {
			t.Errorf("%+v", s)
		}
	})
}
