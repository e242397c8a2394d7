package config

import "strings"

// position is a place in the file, both from 1.
type position struct{ line, column int }

// source remembers the file's lines and where each value stood, keyed by its
// path ("resources.pg.volumes[0].disk").
type source struct {
	name  string
	lines []string
	at    map[string]position
}

func newSource(name string, data []byte) *source {
	return &source{name: name, lines: strings.Split(string(data), "\n"), at: map[string]position{}}
}

// errAt builds an error at a position.
func (s *source) errAt(p position, text, hint string) *Error {
	e := &Error{File: s.name, Line: p.line, Column: p.column, Text: text, Hint: hint}
	if p.line > 0 && p.line <= len(s.lines) {
		e.Source = strings.TrimRight(s.lines[p.line-1], "\r ")
	}
	return e
}

// find returns the place of a path, or of the nearest thing around it.
func (s *source) find(path string) position {
	for path != "" {
		if p, ok := s.at[path]; ok {
			return p
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			break
		}
		path = path[:i]
	}
	return s.at[""]
}
