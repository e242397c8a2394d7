package script

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// made is a lab whose time passes when it is asked to, and in which something
// happens at an instant.
type made struct {
	now     time.Duration
	happens map[time.Duration]func(*made)
	view    View
	acted   []Action
	refuses bool
	broken  error
	loaded  bool
}

func (m *made) Now() time.Duration { return m.now }

func (m *made) Act(a Action) error {
	m.acted = append(m.acted, a)
	if m.refuses {
		return fmt.Errorf("%w: made up", ErrRefused)
	}
	return m.broken
}

func (m *made) Load(on bool) error  { m.loaded = on; return nil }
func (m *made) Look() (View, error) { return m.view, m.broken }
func (m *made) End() error          { return m.broken }

func (m *made) Pass(d time.Duration) error {
	for end := m.now + d; m.now < end; m.now += time.Millisecond {
		if fn := m.happens[m.now]; fn != nil {
			fn(m)
		}
	}
	return m.broken
}

func serves(who string) View {
	return View{Nodes: map[string]NodeView{who: {Serves: true, InSet: []string{who}}}}
}

func TestPlay(t *testing.T) {
	at := func(d time.Duration, fn func(*made)) map[time.Duration]func(*made) {
		return map[time.Duration]func(*made){d: fn}
	}
	betaServes := func(m *made) { m.view = serves(Beta) }
	for _, c := range []struct {
		name, steps string
		lab         made
		fails       string        // "" for not
		ends        time.Duration // when
	}{
		{"it is waited for no longer than needed", "await primary beta within 5s", made{happens: at(time.Second, betaServes)}, "", 1020 * time.Millisecond},
		{"it is waited for no longer than said", "await primary beta within 500ms", made{happens: at(time.Second, betaServes)}, "not so", 500 * time.Millisecond},
		{"alone is with a set of one", "await alone beta within 2s", made{happens: at(time.Second, betaServes)}, "", 1020 * time.Millisecond},
		{"what is held may not end", "hold primary alpha for 2s", made{view: serves(Alpha), happens: at(time.Second, betaServes)}, "does not hold", 1020 * time.Millisecond},
		{"what is held for long enough may", "hold primary alpha for 900ms", made{view: serves(Alpha), happens: at(time.Second, betaServes)}, "", 900 * time.Millisecond},
		{"nobody serves", "hold primary none for 1s", made{view: View{}}, "", time.Second},
		{"somebody does", "hold primary none for 1s", made{view: serves(Beta)}, "does not hold", 0},
		{"a refusal is none", "expect refused promote beta", made{}, "not refused", 0},
		{"a refusal is one", "expect refused promote beta", made{refuses: true}, "", 0},
		{"a fault is no refusal", "expect refused promote beta", made{broken: errors.New("the lab burns")}, "burns", 0},
		{"an action is refused", "promote beta", made{refuses: true}, "refused", 0},
		{"answers count from the step", "await answers 10 within 1s", made{view: View{Answers: 100}}, "not so", time.Second},
		{"answers are there", "await answers 10 within 1s", made{view: View{Answers: 100}, happens: at(100*time.Millisecond, func(m *made) { m.view.Answers = 110 })}, "", 120 * time.Millisecond},
		{"time passes", "wait 70ms", made{}, "", 70 * time.Millisecond},
		{"nobody waits for longer", "wait 5s", made{happens: at(time.Second, func(m *made) { m.view.Gap = 3 * time.Second })}, "never frozen-longer-than: the application has waited 3s", 1020 * time.Millisecond},
		{"a law is broken", "wait 5s", made{happens: at(time.Second, func(m *made) { m.broken = &Violation{AckLost, errors.New("7 is gone")} })}, "never ack-lost: 7 is gone", 1001 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Parse("x.txt", []byte("scenario x\nnever two-primaries\nnever ack-lost\nnever frozen-longer-than 2s\nload on\n"+c.steps))
			if err != nil {
				t.Fatal(err)
			}
			err = s.Play(&c.lab, nil)
			if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), "scenarios/x.txt:6: "+c.steps) || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("ends with %v; want %q", err, c.fails)
			}
			if d := c.lab.now - c.ends; d < -20*time.Millisecond || d > 20*time.Millisecond {
				t.Errorf("ends at %s; want %s", c.lab.now, c.ends)
			}
			if !c.lab.loaded {
				t.Error("no load")
			}
		})
	}
}

// Each form reaches the lab as what it says.
func TestActions(t *testing.T) {
	lab := &made{}
	s, err := Parse("x.txt", []byte("scenario x\nnever two-primaries\nnever ack-lost\nload on\npower off gamma\nlink cut beta lan\ndisk alpha hang\nswitchover to beta\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Play(lab, nil); err != nil {
		t.Fatal(err)
	}
	want := []Action{{PowerOff, Gamma, ""}, {Cut, Beta, LAN}, {DiskHangs, Alpha, ""}, {Switchover, Beta, ""}}
	if !slices.Equal(lab.acted, want) {
		t.Errorf("%v", lab.acted)
	}
}
