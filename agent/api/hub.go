package api

import (
	"fmt"
	"sync"
	"time"

	"hapair/agent/apiv1"
)

// Bounds of the event stream.
const (
	// KeptEvents are remembered for subscribers that ask for the past.
	KeptEvents = 4096
	// QueuedEvents may wait for one subscriber beyond what it asked of the past;
	// the next one ends its stream.
	QueuedEvents = 256
	// MaxSubscribers may listen at once.
	MaxSubscribers = 64
)

// SinceNow asks for new events only.
const SinceNow = ^uint64(0)

// Hub numbers events, keeps the newest and hands them to subscribers. It never
// waits for a subscriber. The zero Hub is not usable: see [NewHub].
type Hub struct {
	node string
	now  func() time.Time

	mu struct {
		sync.Mutex
		seq  uint64
		kept []apiv1.Event // the newest, oldest first, at most KeptEvents
		subs map[*Subscription]struct{}
	}
}

// NewHub returns an empty hub; node is stamped on every event and now gives
// their time.
func NewHub(node string, now func() time.Time) *Hub {
	h := &Hub{node: node, now: now}
	h.mu.subs = map[*Subscription]struct{}{}
	return h
}

// Subscription is one listener's queue.
type Subscription struct {
	// C delivers events in order and is closed when the stream ends: by Close,
	// or because the listener was too slow (then Problem is not nil).
	C <-chan apiv1.Event

	hub     *Hub
	c       chan apiv1.Event
	problem *apiv1.Problem // guarded by hub.mu
}

// Publish numbers an event, keeps it and hands it out. It does not block.
func (h *Hub) Publish(kind, resource, text string, fields map[string]string) apiv1.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.seq++
	e := apiv1.Event{Seq: h.mu.seq, Time: h.now(), Node: h.node, Kind: kind, Resource: resource, Text: text, Fields: fields}
	if len(h.mu.kept) == KeptEvents {
		copy(h.mu.kept, h.mu.kept[1:])
		h.mu.kept[KeptEvents-1] = e
	} else {
		h.mu.kept = append(h.mu.kept, e)
	}
	for s := range h.mu.subs {
		select {
		case s.c <- e:
		default:
			h.drop(s, &apiv1.Problem{
				Code: apiv1.CodeSlowReader,
				Text: fmt.Sprintf("this reader is more than %d events behind (next would be %d); the stream ends", QueuedEvents, e.Seq),
				Hint: "ask again with since= the last event seen",
			})
		}
	}
	return e
}

// Seq returns the number of the newest event.
func (h *Hub) Seq() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.seq
}

// Subscribe returns a queue of the kept events after since (SinceNow: none) and
// of everything that follows. Events no longer kept are announced by one event
// of kind dropped with the number of the last lost one. So is a since that no event has
// yet: it is of an earlier life of the agent, and all that is kept comes. Too many
// subscribers get a closed queue with a problem.
func (h *Hub) Subscribe(since uint64) *Subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	var past []apiv1.Event
	if since != SinceNow {
		past = h.after(since)
	}
	s := &Subscription{hub: h, c: make(chan apiv1.Event, len(past)+QueuedEvents)}
	s.C = s.c
	if len(h.mu.subs) >= MaxSubscribers {
		s.problem = &apiv1.Problem{
			Code: apiv1.CodeUnavailable, Text: fmt.Sprintf("%d readers follow the events already", MaxSubscribers),
			Hint: "end one of them",
		}
		close(s.c)
		return s
	}
	for _, e := range past {
		s.c <- e
	}
	h.mu.subs[s] = struct{}{}
	return s
}

// after returns the kept events above since, led by a note when some are lost.
func (h *Hub) after(since uint64) []apiv1.Event {
	kept := h.mu.kept
	var out []apiv1.Event
	switch lost := h.mu.seq - uint64(len(kept)); {
	case since > h.mu.seq:
		out = append(out, h.note(lost, fmt.Sprintf("no event %d since the agent began: its numbers begin anew", since)))
		since = lost
	case since < lost:
		out = append(out, h.note(lost, fmt.Sprintf("events %d to %d are no longer kept", since+1, lost)))
	}
	for i := range kept {
		if kept[i].Seq > since {
			return append(out, kept[i:]...)
		}
	}
	return out
}

// note says what a reader cannot have, up to the event with the number seq.
func (h *Hub) note(seq uint64, text string) apiv1.Event {
	at := h.now()
	if len(h.mu.kept) > 0 {
		at = h.mu.kept[0].Time
	}
	return apiv1.Event{Seq: seq, Time: at, Node: h.node, Kind: apiv1.EventDropped, Text: text}
}

// drop ends a subscription; hub.mu is held.
func (h *Hub) drop(s *Subscription, why *apiv1.Problem) {
	if _, live := h.mu.subs[s]; !live {
		return
	}
	delete(h.mu.subs, s)
	s.problem = why
	close(s.c)
}

// Close ends the stream. It may be called more than once.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.drop(s, nil)
}

// Problem says why C was closed; nil when the listener closed it.
func (s *Subscription) Problem() *apiv1.Problem {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.problem
}
