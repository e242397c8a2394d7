package service

import (
	"errors"
	"fmt"
	"strings"
)

// StartError is returned when a service could not be started. It says in what
// state the group was left.
type StartError struct {
	Service    string
	Attempts   int
	Err        error
	Stopped    []string // in the order they were stopped again
	Left       []string // may still run, because a StopErrors entry kept them from being stopped
	StopErrors []error
}

// Error says what failed and what is left.
func (e *StartError) Error() string {
	text := fmt.Sprintf("%s did not start: %v", e.Service, e.Err)
	if e.Attempts > 1 {
		text = fmt.Sprintf("%s did not start in %d attempts: %v", e.Service, e.Attempts, e.Err)
	}
	if len(e.Stopped) > 0 {
		text += "; stopped again: " + strings.Join(e.Stopped, ", ")
	}
	if len(e.Left) > 0 {
		text += fmt.Sprintf("; may still run: %s (%v)", strings.Join(e.Left, ", "), errors.Join(e.StopErrors...))
	}
	return text
}

// ServiceName is the one that did not start.
func (e *StartError) ServiceName() string { return e.Service }

// Unwrap returns the last attempt's error and those of stopping.
func (e *StartError) Unwrap() []error { return append([]error{e.Err}, e.StopErrors...) }

// StopError is returned when a service could not be stopped. What was started
// before it is left running: it may depend on it.
type StopError struct {
	Service string
	Err     error
	Left    []string // may still run; the first of them is Service
}

// Error says what failed and what is left.
func (e *StopError) Error() string {
	text := fmt.Sprintf("%s did not stop: %v", e.Service, e.Err)
	if len(e.Left) > 1 {
		text += "; left as they were: " + strings.Join(e.Left[1:], ", ")
	}
	return text
}

// Unwrap returns the service's error.
func (e *StopError) Unwrap() error { return e.Err }

// ErrOverruled is the cause when a Start or a Check is given up because a Stop came.
var ErrOverruled = errors.New("overruled by a stop")
