package script

import (
	"embed"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
)

// Bounds of a file.
const (
	fileBytesMax = 64 << 10
	stepsMax     = 200
	timeMax      = 10 * time.Minute // of one step
)

//go:embed scenarios/*.txt
var files embed.FS

// All are the scenarios of the project, by name.
func All() ([]*Scenario, error) {
	entries, err := files.ReadDir("scenarios")
	if err != nil {
		return nil, err
	}
	var out []*Scenario
	for _, e := range entries {
		name := path.Join("scenarios", e.Name())
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		s, err := Parse(name, text)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// SyntaxError is a line that is not understood.
type SyntaxError struct {
	File string
	Line int // 0: the file as a whole
	Err  error
}

// Error says where, what was found, and what would be right.
func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

// Unwrap returns what is wrong with the line.
func (e *SyntaxError) Unwrap() error { return e.Err }

// Parse reads a scenario. An error is a *SyntaxError.
func Parse(file string, text []byte) (*Scenario, error) {
	if len(text) > fileBytesMax {
		return nil, &SyntaxError{file, 0, fmt.Errorf("%d bytes; at most %d", len(text), fileBytesMax)}
	}
	s := &Scenario{Name: strings.TrimSuffix(path.Base(file), ".txt")}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 0 {
			if err := s.line(n, words); err != nil {
				return nil, &SyntaxError{file, n, err}
			}
		}
	}
	if err := s.whole(); err != nil {
		return nil, &SyntaxError{file, 0, err}
	}
	return s, nil
}

// whole judges what only the whole file shows.
func (s *Scenario) whole() error {
	switch {
	case s.Purpose == "":
		return errors.New(`no purpose; want a first line "scenario" with one sentence`)
	case !s.Never.TwoPrimaries || !s.Never.AckLost:
		return errors.New(`want "never two-primaries" and "never ack-lost": nothing may excuse them`)
	case len(s.Steps) == 0:
		return errors.New("no steps")
	}
	loaded := false
	for _, step := range s.Steps {
		loaded = loaded || step.Kind == Load && step.On
	}
	if !loaded {
		return errors.New(`no load; want "load on" once, or nothing that is answered can be lost`)
	}
	return nil
}

// line takes one line that is not empty.
func (s *Scenario) line(n int, words []string) error {
	if len(words[0]) > 0 && len(s.Steps) == 0 {
		if done, err := s.header(words); done {
			return err
		}
	}
	if s.Purpose == "" {
		return fmt.Errorf(`%q before the purpose; want "scenario" with one sentence first`, words[0])
	}
	if len(s.Steps) == stepsMax {
		return fmt.Errorf("more than %d steps", stepsMax)
	}
	step, err := parseStep(words)
	step.Line = n
	s.Steps = append(s.Steps, step)
	return err
}

// header takes a line of the header; done tells whether it is one.
func (s *Scenario) header(words []string) (done bool, err error) {
	rest := strings.Join(words[1:], " ")
	switch words[0] {
	case "scenario":
		if s.Purpose != "" || rest == "" {
			return true, errors.New(`want "scenario" once, with one sentence`)
		}
		s.Purpose = rest
	case "about":
		if rest == "" {
			return true, errors.New(`want "about" with the name of a test or a defect`)
		}
		s.About = append(s.About, rest)
	case "seed":
		seed, err := strconv.ParseUint(rest, 10, 64)
		if err != nil {
			return true, fmt.Errorf(`%q is no seed; want a number`, rest)
		}
		s.Seeds = append(s.Seeds, seed)
	case "never":
		return true, s.never(words[1:])
	default:
		return false, nil
	}
	return true, nil
}

func (s *Scenario) never(words []string) (err error) {
	switch {
	case len(words) == 1 && words[0] == "two-primaries":
		s.Never.TwoPrimaries = true
	case len(words) == 1 && words[0] == "ack-lost":
		s.Never.AckLost = true
	case len(words) == 2 && words[0] == "frozen-longer-than":
		s.Never.Frozen, err = parseTime(words[1])
	default:
		err = fmt.Errorf("never %q; want two-primaries, ack-lost, or frozen-longer-than TIME", strings.Join(words, " "))
	}
	return err
}

func parseTime(word string) (time.Duration, error) {
	d, err := time.ParseDuration(word)
	if err != nil || d <= 0 || d > timeMax {
		return 0, fmt.Errorf("%q is no time; want such as 500ms or 3s, at most %s", word, timeMax)
	}
	return d, nil
}

func parseStep(words []string) (step Step, err error) {
	switch words[0] {
	case "load":
		if len(words) != 2 || words[1] != "on" && words[1] != "off" {
			return step, fmt.Errorf("%q; want load on, or load off", strings.Join(words, " "))
		}
		return Step{Kind: Load, On: words[1] == "on"}, nil
	case "wait":
		if len(words) != 2 {
			return step, errors.New("want wait TIME")
		}
		step.Kind = Wait
		step.For, err = parseTime(words[1])
	case "await":
		return parseTimed(Await, "within", words)
	case "hold":
		return parseTimed(Hold, "for", words)
	case "expect":
		if len(words) < 3 || words[1] != "refused" {
			return step, errors.New("want expect refused ACTION")
		}
		step.Kind = Refused
		step.Action, err = parseAction(words[2:])
	case "scenario", "about", "seed", "never":
		err = fmt.Errorf("%q after the first step; it belongs into the header", words[0])
	default:
		step.Kind = Act
		step.Action, err = parseAction(words)
	}
	return step, err
}

// parseTimed reads a condition and a time, with a word between them.
func parseTimed(kind StepKind, word string, words []string) (step Step, err error) {
	n := len(words)
	if n < 4 || words[n-2] != word {
		return step, fmt.Errorf("want %s CONDITION %s TIME", words[0], word)
	}
	step.Kind = kind
	if step.For, err = parseTime(words[n-1]); err != nil {
		return step, err
	}
	step.Condition, err = parseCondition(words[1 : n-2])
	if err == nil && kind == Hold && step.Condition.What == Answers {
		err = errors.New("answers are awaited; they cannot be held")
	}
	return step, err
}
