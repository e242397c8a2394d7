package commands

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/ctl/client"
)

// Exit codes of hactl. They are documented and stable.
const (
	ExitOK             = 0
	ExitFailed         = 1 // tried and failed, or an unexpected error
	ExitUsage          = 2 // the command line or the configuration is wrong
	ExitRefused        = 3 // a rule forbids it now
	ExitUnreachable    = 4 // no agent answers on the socket
	ExitNotImplemented = 5 // described, not built
	ExitForbidden      = 6 // not permitted for this user
	ExitTimeout        = 7 // not done in time, or interrupted; it may still complete
)

// usageError is a wrong command line.
type usageError struct{ text, hint string }

// Error returns what is wrong.
func (e *usageError) Error() string { return e.text }

func usage(hint, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), hint}
}

// judge turns an error into the problem shown and the exit code.
func judge(err error) (apiv1.Problem, int) {
	var p *apiv1.Problem
	var u *usageError
	var gone *client.UnreachableError
	var left *client.UnansweredError
	var bad config.Errors
	var ni *config.NotImplementedError
	switch {
	case errors.As(err, &p):
		return apiv1.Problem{Code: p.Code, Text: err.Error(), Hint: p.Hint}, exitOf(p.Code)
	case errors.As(err, &u):
		return apiv1.Problem{Code: apiv1.CodeBadRequest, Text: err.Error(), Hint: u.hint}, ExitUsage
	case errors.As(err, &gone) && errors.Is(err, fs.ErrPermission):
		return apiv1.Problem{Code: apiv1.CodeForbidden, Text: "not permitted to use " + gone.Socket,
			Hint: "as root, or to look: as a member of the group that api.read_group names"}, ExitForbidden
	case errors.As(err, &gone):
		return apiv1.Problem{Code: apiv1.CodeUnavailable, Text: err.Error(), Hint: "systemctl status 'hapair*'; another socket is named with --socket"}, ExitUnreachable
	case errors.As(err, &bad):
		return apiv1.Problem{Code: apiv1.CodeBadRequest, Text: err.Error()}, ExitUsage
	case errors.As(err, &ni):
		return apiv1.Problem{Code: apiv1.CodeNotImplemented, Text: err.Error()}, ExitNotImplemented
	case errors.As(err, &left):
		return apiv1.Problem{Code: apiv1.CodeTimeout, Text: "interrupted before the agent answered", Hint: "it may still complete; see hactl status and hactl events"}, ExitTimeout
	case errors.Is(err, context.Canceled):
		return apiv1.Problem{Code: apiv1.CodeTimeout, Text: "interrupted"}, ExitTimeout
	case errors.Is(err, context.DeadlineExceeded):
		return apiv1.Problem{Code: apiv1.CodeTimeout, Text: err.Error()}, ExitTimeout
	}
	return apiv1.Problem{Code: apiv1.CodeInternal, Text: err.Error()}, ExitFailed
}

func exitOf(code string) int {
	switch code {
	case apiv1.CodeBadRequest, apiv1.CodeTooLarge, apiv1.CodeBadMethod, apiv1.CodeNotFound:
		return ExitUsage
	case apiv1.CodeNotImplemented:
		return ExitNotImplemented
	case apiv1.CodeForbidden:
		return ExitForbidden
	case apiv1.CodeTimeout:
		return ExitTimeout
	case apiv1.CodeInternal, apiv1.CodeUnavailable, apiv1.CodeSlowReader:
		return ExitFailed
	}
	return ExitRefused
}
