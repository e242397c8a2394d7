package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// lastAnswers bounds how long the end of a group waits for what raft is about to
// answer. It answers what the others have not confirmed when it ends; what it has given
// its state machine by then it may leave unanswered for ever.
const lastAnswers = 5 * time.Millisecond

// await has raft begin something and waits for it no longer than ctx. What a disk that
// hangs keeps from ending is left behind: it ends with its raft.
func (g *group) await(ctx context.Context, begin func() raft.Future) callReply {
	g.calls.Add(1)
	done := make(chan error, 1)
	go func() {
		done <- begin().Error()
		if g.calls.Add(-1) == 0 {
			select {
			case g.idle <- struct{}{}:
			default: // there is one
			}
		}
	}()
	select {
	case err := <-done:
		return replyTo(err)
	case <-ctx.Done():
		return callReply{Status: statusUnknown, Detail: ctx.Err().Error()}
	}
}

// barrier waits until all that was committed before has been applied; limit bounds how
// long raft is to be busy with others first, 0 does not.
func (g *group) barrier(ctx context.Context, limit time.Duration) callReply {
	return g.await(ctx, func() raft.Future { return g.raft.Barrier(limit) })
}

// addVoter, addLearner and remove change the members as of an entry, 0 for as they are.
func (g *group) addVoter(ctx context.Context, node string, at uint64) callReply {
	return g.await(ctx, func() raft.Future {
		return g.raft.AddVoter(raft.ServerID(node), raft.ServerAddress(node), at, enqueueTimeout)
	})
}

func (g *group) addLearner(ctx context.Context, node string, at uint64) callReply {
	return g.await(ctx, func() raft.Future {
		return g.raft.AddNonvoter(raft.ServerID(node), raft.ServerAddress(node), at, enqueueTimeout)
	})
}

func (g *group) remove(ctx context.Context, node string, at uint64) callReply {
	return g.await(ctx, func() raft.Future { return g.raft.RemoveServer(raft.ServerID(node), at, enqueueTimeout) })
}

// apply has a command committed, and answers what the state machine did.
func (g *group) apply(ctx context.Context, data []byte) callReply {
	begun := make(chan raft.ApplyFuture, 1)
	r := g.await(ctx, func() raft.Future {
		f := g.raft.Apply(data, enqueueTimeout)
		begun <- f
		return f
	})
	if r.Status != statusOK {
		return r
	}
	response := (<-begun).Response()
	a, ok := response.(applied)
	if !ok {
		return callReply{Status: statusUnknown, Detail: fmt.Sprintf("state machine answered %T", response)}
	}
	return callReply{Status: statusOK, Answer: a.answer, Index: a.index}
}

func replyTo(err error) callReply {
	switch {
	case err == nil:
		return callReply{Status: statusOK}
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return callReply{Status: statusNotLeader, Detail: err.Error()}
	}
	return callReply{Status: statusUnknown, Detail: err.Error()}
}

// answered waits for the last answers.
func (g *group) answered() {
	limit := time.NewTimer(lastAnswers)
	defer limit.Stop()
	for g.calls.Load() > 0 {
		select {
		case <-g.idle:
		case <-limit.C:
			return
		}
	}
}

// shutdown begins the end of raft; the same future every time.
func (g *group) shutdown() raft.Future {
	g.once.Do(func() { g.down = g.raft.Shutdown() })
	return g.down
}
