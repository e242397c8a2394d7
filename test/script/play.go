package script

import (
	"errors"
	"fmt"
	"time"
)

// look is how much time passes between two looks at the pair, at most.
const look = 20 * time.Millisecond

// StepError is a step that did not go as the scenario says.
type StepError struct {
	Name string
	Step Step
	Err  error
}

// Error says which step of which file.
func (e *StepError) Error() string {
	return fmt.Sprintf("scenarios/%s.txt:%d: %s: %v", e.Name, e.Step.Line, e.Step, e.Err)
}

// Unwrap returns what went wrong.
func (e *StepError) Unwrap() error { return e.Err }

// Play plays a scenario on a lab that is as every scenario begins, and ends it. say
// is told each step; nil for nobody. A *StepError is of a step, anything else of
// the end.
func (s *Scenario) Play(lab Lab, say func(format string, args ...any)) error {
	if say == nil {
		say = func(string, ...any) {}
	}
	p := player{lab: lab, never: s.Never}
	for _, step := range s.Steps {
		say("%s", step)
		if err := p.step(step); err != nil {
			return &StepError{s.Name, step, err}
		}
	}
	say("the end: everything is mended")
	if err := lab.End(); err != nil {
		return fmt.Errorf("scenarios/%s.txt, at its end: %w", s.Name, err)
	}
	return nil
}

type player struct {
	lab   Lab
	never Never
}

func (p *player) step(s Step) error {
	switch s.Kind {
	case Act:
		return p.lab.Act(s.Action)
	case Refused:
		return p.refused(s.Action)
	case Load:
		return p.lab.Load(s.On)
	case Wait:
		return p.until(s.For, func(View) (bool, error) { return false, nil })
	case Await:
		return p.await(s)
	case Hold:
		return p.until(s.For, func(v View) (bool, error) {
			if !v.holds(s.Condition, 0) {
				return false, fmt.Errorf("it does not hold: %+v", v)
			}
			return false, nil
		})
	}
	return fmt.Errorf("step of kind %d", s.Kind)
}

func (p *player) refused(a Action) error {
	err := p.lab.Act(a)
	switch {
	case err == nil:
		return errors.New("it was not refused")
	case errors.Is(err, ErrRefused):
		return nil
	}
	return err
}

func (p *player) await(s Step) error {
	first, err := p.look()
	if err != nil {
		return err
	}
	so, last := false, first
	err = p.until(s.For, func(v View) (bool, error) {
		so, last = v.holds(s.Condition, first.Answers), v
		return so, nil
	})
	if err == nil && !so {
		err = fmt.Errorf("not so: %+v", last)
	}
	return err
}

// until looks at the pair again and again until something is so, an error is
// found, or the time is over.
func (p *player) until(within time.Duration, so func(View) (bool, error)) error {
	for end := p.lab.Now() + within; ; {
		v, err := p.look()
		if err != nil {
			return err
		}
		if done, err := so(v); done || err != nil {
			return err
		}
		left := end - p.lab.Now()
		if left <= 0 {
			return nil
		}
		if err := p.lab.Pass(min(look, left)); err != nil {
			return err
		}
	}
}

// look looks at the pair, and at the time without an answer.
func (p *player) look() (View, error) {
	v, err := p.lab.Look()
	if err == nil && p.never.Frozen > 0 && v.Gap > p.never.Frozen {
		err = &Violation{FrozenLonger, fmt.Errorf("the application has waited %s for an answer, %s at most", v.Gap.Round(time.Millisecond), p.never.Frozen)}
	}
	return v, err
}
