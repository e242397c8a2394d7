package play

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/script"
)

// Act implements script.Lab.
func (l *Lab) Act(a script.Action) error {
	if a.Verb >= script.Promote {
		return l.operator(a)
	}
	if a.Verb == script.PowerOff || a.Verb == script.Kill || a.Verb == script.Stop || a.Verb == script.Pause {
		l.done.remember(a) // whoever looks meanwhile need not ask it
	}
	err := l.p.Do(a)
	if err == nil {
		l.done.remember(a)
	}
	return err
}

// declined are the codes of refusals by a rule: not of a fault, nor of a question
// that was not understood.
var declined = []string{apiv1.CodeRefused, apiv1.CodeNotPrimary, apiv1.CodeNoQuorum, apiv1.CodeNotUpToDate, apiv1.CodePeerConnected,
	apiv1.CodePeerAway, apiv1.CodeSplitBrain, apiv1.CodeWouldLose, apiv1.CodeBusy}

// operator asks a node's agent what hactl asks. An agent that is starting is asked
// again, and so is a disk that is attached: what it was given before comes back in
// its own time.
func (l *Lab) operator(a script.Action) error {
	ctx, cancel := context.WithTimeout(l.ctx, l.patience())
	defer cancel()
	for end := time.Now().Add(busyFor * time.Duration(l.speed.Slow)); ; {
		err := l.ask(ctx, a)
		var no *apiv1.Problem
		refused := errors.Is(err, script.ErrRefused)
		starting := err != nil && !refused && (!errors.As(err, &no) || no.Code == apiv1.CodeUnavailable)
		if again := starting || refused && a.Verb == script.Attach; !again || time.Now().After(end) {
			return err
		}
		if err := l.Pass(0); err != nil {
			return err
		}
	}
}

func (l *Lab) ask(ctx context.Context, a script.Action) error {
	verb, request := question(a, l.patience())
	if verb == "" {
		return fmt.Errorf("%s: not implemented in this lab", a)
	}
	err := l.p.Call(ctx, a.Node, http.MethodPost, apiv1.PathResources+l.p.Resource()+"/"+verb, request, nil)
	var no *apiv1.Problem
	switch {
	case errors.As(err, &no) && slices.Contains(declined, no.Code):
		l.p.Say("refused: %s", no.Text)
		return fmt.Errorf("%w: %w", script.ErrRefused, err)
	case err == nil:
		l.done.remember(a)
	}
	return err
}

// question is what an action is in the API, of which one that takes long may take
// so much time.
func question(a script.Action, within time.Duration) (verb string, request any) {
	wait := int64(within / time.Millisecond)
	switch a.Verb {
	case script.Promote:
		return apiv1.VerbPromote, apiv1.PromoteRequest{WaitMS: wait}
	case script.Demote:
		return apiv1.VerbDemote, apiv1.DemoteRequest{WaitMS: wait}
	case script.Switchover:
		return apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: a.Node, WaitMS: wait}
	case script.Connect:
		return apiv1.VerbConnect, apiv1.ConnectRequest{}
	case script.Disconnect:
		return apiv1.VerbDisconnect, apiv1.DisconnectRequest{Force: true} // the script knows what it leaves behind
	case script.Attach:
		return apiv1.VerbAttach, apiv1.AttachRequest{}
	case script.Invalidate:
		return apiv1.VerbInvalidate, apiv1.InvalidateRequest{}
	case script.PauseSync:
		return apiv1.VerbPauseSync, apiv1.SyncRequest{}
	case script.ResumeSync:
		return apiv1.VerbResumeSync, apiv1.SyncRequest{}
	case script.Verify, script.Repair:
		return apiv1.VerbVerify, apiv1.VerifyRequest{Repair: a.Verb == script.Repair}
	default:
		return "", nil
	}
}
