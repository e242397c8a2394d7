package detect

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write the golden stories anew")

// TestStories replays testdata/*.txt. A line is a comment (#), "peer NODE
// PATH...", "set confirm|recover|... DURATION", or "TIME KIND [NODE] [PATH|AGO]
// ["note"]". TIME alone lets time pass, deadline by deadline; "TIME show"
// prints everything, "TIME stall" lets it pass without a step. What follows from a line is printed below it.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d stories, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(b))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(b) {
				t.Errorf("now tells:\n%s", got)
			}
		})
	}
}

const told = "    | "

type teller struct {
	t   *testing.T
	cfg Config
	d   *Detector
	out strings.Builder
}

func replay(t *testing.T, text string) string {
	s := &teller{t: t}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, told) {
			continue
		}
		fmt.Fprintln(&s.out, line)
		line, note, _ := strings.Cut(line, ` "`)
		if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
			s.do(f, strings.TrimSuffix(note, `"`))
		}
	}
	return s.out.String()
}

func (s *teller) do(f []string, note string) {
	switch f[0] {
	case "peer":
		s.cfg.Peers = append(s.cfg.Peers, Peer{Node: f[1], Paths: f[2:]})
		return
	case "set":
		*map[string]*time.Duration{"confirm": &s.cfg.Confirm, "recover": &s.cfg.Recover, "grace": &s.cfg.Grace,
			"suspect": &s.cfg.SuspectAfter, "dead": &s.cfg.DeadAfter, "link": &s.cfg.LinkFresh}[f[1]] = s.duration(f[2])
		return
	}
	if s.d == nil {
		d, err := New(s.cfg, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		s.d = d
	}
	now := s.duration(f[0])
	if len(f) > 1 && f[1] == "stall" { // nothing runs until then
		s.tell(now)
		return
	}
	s.pass(now)
	if len(f) > 1 && f[1] == "show" {
		s.show()
	} else if len(f) > 1 {
		s.tell(now, s.evidence(f[1:], note)...)
	}
}

func (s *teller) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *teller) evidence(f []string, note string) []Evidence {
	for i, name := range kindNames {
		if i == 0 || name != f[0] {
			continue
		}
		e := Evidence{Kind: Kind(i), Note: note}
		switch {
		case e.Kind.ofPath():
			e.Path = f[1]
		case e.Kind.ofLink():
			e.Node = f[1]
			if len(f) > 2 {
				e.Ago = s.duration(f[2])
			}
		default:
			e.Node, e.Path = f[1], f[2]
		}
		return []Evidence{e}
	}
	s.t.Fatalf("unknown kind %q", f[0])
	return nil
}

// pass steps at every deadline up to now.
func (s *teller) pass(now time.Duration) {
	for {
		at, ok := s.d.Deadline()
		if !ok || at > now {
			break
		}
		s.tell(at)
	}
	s.tell(now)
}

func (s *teller) tell(now time.Duration, e ...Evidence) {
	changes, err := s.d.Step(now, e...)
	if err != nil {
		fmt.Fprintf(&s.out, "%s%v\n", told, err)
	}
	for _, c := range changes {
		what := c.Node
		if c.Path != "" {
			what += " by " + c.Path
		}
		fmt.Fprintf(&s.out, "%s%s %s: %s -> %s: %s\n", told, now, what, c.Was, c.Now, texts(c.Because))
	}
}

func texts(all []Reason) string {
	var parts []string
	for _, r := range all {
		text := fmt.Sprintf("[%s] %s", r.Code, r.Text)
		if r.Path != "" {
			text = r.Path + " " + text
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func (s *teller) show() {
	for _, v := range s.d.Verdicts() {
		fmt.Fprintf(&s.out, "%s%s %s since %s: %s\n", told, v.Node, v.State, v.Since, texts(v.Reasons))
		for _, p := range v.Paths {
			fmt.Fprintf(&s.out, "%s  by %s %s since %s\n", told, p.Path, p.State, p.Since)
		}
	}
}
