package mirror

import (
	"errors"
	"slices"
	"time"

	"hapair/mirror/engine"
	"hapair/mirror/front"
	"hapair/mirror/link"
	"hapair/mirror/state"
)

// View is a snapshot of a resource.
type View struct {
	engine.View
	State state.Connection
	Link  link.Stats
	// Reason says why there is no session, nil while there is one or nothing is known.
	Reason     error
	SplitBrain bool     // both copies were written without the other
	Devices    []string // where the volumes are offered, "" when not
	Kinds      []string // of the front ends
	Now        time.Duration
	// TakenBackAt is when a disk that hung, and answers again, is attached by itself;
	// 0 when none is about to be.
	TakenBackAt time.Duration
}

// View returns a snapshot; it does not block on disks or on the network.
func (r *Resource) View() View {
	r.mu.Lock()
	w := View{View: r.mu.eng.View(), Now: r.cfg.Clock()}
	r.mu.Unlock()
	for _, v := range r.vols {
		w.Devices = append(w.Devices, v.device())
		w.Kinds = append(w.Kinds, v.cfg.Frontend.Kind())
	}
	w.TakenBackAt = time.Duration(r.takenBackAt.Load())
	w.State = r.connection(&w)
	w.Link = r.link.Stats()
	if w.Connected && w.Link.Session != 0 {
		w.Path = w.Link.Path // a session may move to another one
	}
	if why := r.why.Load(); why != nil && !w.Connected {
		w.Reason, w.SplitBrain = *why, errors.Is(*why, engine.ErrSplitBrain)
	}
	return w
}

func (r *Resource) connection(w *View) state.Connection {
	switch {
	case w.Connected:
		return state.Connected
	case r.standAlone.Load():
		return state.StandAlone
	}
	return state.Connecting
}

// Diverged reports whether both nodes went on without the other: by their data,
// or because both are Primary.
func (v *View) Diverged() bool {
	return v.SplitBrain || v.Role == state.Primary && v.Rival != nil && v.Rival.Role == state.Primary
}

// Unopened reports whether this node is Primary without all its devices: a promotion
// could not offer them, or is at it.
func (v *View) Unopened() bool {
	return v.Role == state.Primary && slices.Contains(v.Devices, "")
}

// Holders lists who holds each volume's device open, in the order of the
// volumes. It waits while a front end starts or stops.
func (r *Resource) Holders() ([][]front.Holder, error) {
	all := make([][]front.Holder, len(r.vols))
	var errs []error
	for i, v := range r.vols {
		if f := v.frontend(); f != nil {
			h, err := f.Holders()
			all[i], errs = h, append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}
