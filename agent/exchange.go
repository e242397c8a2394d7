package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/peering"
)

// Bounds of a question to another agent, each on a stream of its own.
const (
	exchangeBytesMax = 16 << 10
	exchangeTimeout  = 2 * time.Second // without a deadline of the caller's
)

// exchange asks another agent one question.
func (a *agent) exchange(ctx context.Context, node, purpose string, question, answer any) error {
	c, err := a.net.Dial(ctx, node, "", purpose)
	if err != nil {
		return fmt.Errorf("%s to %s: %w", purpose, node, err)
	}
	defer closeQuietly(c)
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(exchangeTimeout)
	}
	if err := c.SetDeadline(deadline); err != nil {
		return fmt.Errorf("%s to %s: %w", purpose, node, err)
	}
	if err := json.NewEncoder(c).Encode(question); err != nil {
		return fmt.Errorf("%s to %s: %w", purpose, node, err)
	}
	if err := json.NewDecoder(io.LimitReader(c, exchangeBytesMax)).Decode(answer); err != nil {
		return fmt.Errorf("%s to %s: answer: %w", purpose, node, err)
	}
	return nil
}

// unknownThere reports the refusal of a node that knows no such purpose: its
// release is an earlier one.
func unknownThere(err error) bool {
	var refused *peering.RefusedError
	return errors.As(err, &refused) && refused.Code == peering.UnknownPurpose
}

// shared is the resource that another node asks about: one of ours with it.
func (a *agent) shared(node, resource string) (*resource, *apiv1.Problem) {
	if r := a.res[resource]; r != nil && r.peer == node {
		return r, nil
	}
	return nil, &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("there is no resource %q of %s and %s", resource, node, a.self), Hint: "hactl status on " + a.self}
}

// take reads the question of a stream that another agent opened.
func take(c *peering.Conn, within time.Duration, question any) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return fmt.Errorf("question of %s: %w", c.Node, err)
	}
	if err := json.NewDecoder(io.LimitReader(c, exchangeBytesMax)).Decode(question); err != nil {
		return fmt.Errorf("question of %s: %w", c.Node, err)
	}
	return nil
}

// refusal is what whoever asked is told of an error.
func refusal(err error) *apiv1.Problem {
	p := &apiv1.Problem{Code: apiv1.CodeInternal, Text: err.Error()}
	errors.As(err, &p)
	return p
}

// give answers it; whoever asked may be gone.
func (a *agent) give(c *peering.Conn, answer any) {
	if err := json.NewEncoder(c).Encode(answer); err != nil {
		a.log.Debug("an answer was not taken", zap.String("peer", c.Node), zap.Error(err))
	}
}
