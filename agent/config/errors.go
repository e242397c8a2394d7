package config

import (
	"fmt"
	"strings"
)

// Error is one problem of a configuration file and where it stands.
type Error struct {
	File   string
	Line   int // from 1; 0 when the problem is not at one place
	Column int // from 1, counted in characters
	Text   string
	Hint   string // what would be right, or ""
	Source string // the line of the file
}

// Error returns the problem on several lines: place and text, the line with a
// caret, the hint.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": " + e.Text)
	if e.Line > 0 && e.Source != "" {
		prefix := fmt.Sprintf("%5d | ", e.Line)
		b.WriteString("\n" + prefix + e.Source + "\n" + caretLine(len(prefix), e.Source, e.Column))
	}
	if e.Hint != "" {
		b.WriteString("\n      " + e.Hint)
	}
	return b.String()
}

// caretLine puts ^ under the column, keeping tabs so that it lines up.
func caretLine(indent int, source string, column int) string {
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", indent))
	n := 1
	for _, r := range source {
		if n >= column {
			break
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
		n++
	}
	b.WriteByte('^')
	return b.String()
}

// Errors is every problem of one file, in the order of the file.
type Errors []*Error

// Error returns all problems, one after the other.
func (es Errors) Error() string {
	texts := make([]string, len(es))
	for i, e := range es {
		texts[i] = e.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap returns the single problems for errors.As.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// NotImplementedError says that the file asks for something this version
// describes but does not do yet.
type NotImplementedError struct {
	What    string // what was asked, in the file's words
	Instead string // what to write instead
}

// Error returns one sentence with what to do instead.
func (e *NotImplementedError) Error() string {
	return e.What + ": not implemented; " + e.Instead
}
