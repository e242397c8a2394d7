package mirror

import (
	"context"
	"fmt"
	"slices"

	"hapair/mirror/engine"
)

// VerifyOptions is what a verify is to do.
type VerifyOptions struct {
	Volume int   // number, or AllVolumes
	Repair bool  // write what differs from the Primary to its peer
	Rate   int64 // bytes per second at most; 0: what the applications leave
	// Resume goes on where the last verify was stopped; with From, where one
	// was that an earlier process ran.
	Resume bool
	From   *VerifyPosition
}

// VerifyPosition is where a verify is: everything before it has been compared.
type VerifyPosition struct {
	Volume uint16 // number
	Offset int64
}

// Verify begins to compare the copies while they are in use. It returns when
// that has begun; View tells how far it is. It goes on through breaks of the
// connection until it is done or stopped.
func (r *Resource) Verify(ctx context.Context, o VerifyOptions) error {
	order := engine.VerifyOrder{Volume: engine.AllVolumes, Repair: o.Repair, Rate: o.Rate, Resume: o.Resume}
	if o.Volume != AllVolumes {
		if order.Volume = r.indexOf(o.Volume); order.Volume < 0 {
			return fmt.Errorf("verify %s: there is no volume %d: %w", r.cfg.Resource, o.Volume, engine.ErrBadState)
		}
	}
	switch was := r.View().Verify; {
	case o.Resume && o.From != nil:
		order.From = engine.VerifyPosition{Volume: r.indexOf(int(o.From.Volume)), Offset: o.From.Offset}
		order.Resume = order.From.Volume >= 0
	case o.Resume && was.State == engine.VerifyStopped:
		order.From = was.Position
	case o.Resume:
		return fmt.Errorf("verify %s: none was stopped: %w", r.cfg.Resource, engine.ErrBadState)
	}
	return r.verifyCommand(ctx, &engine.Event{Kind: engine.Verify, Verify: order})
}

// StopVerify ends the verify and keeps its position. It returns when nothing
// of it is in flight.
func (r *Resource) StopVerify(ctx context.Context) error {
	return r.verifyCommand(ctx, &engine.Event{Kind: engine.VerifyStop})
}

func (r *Resource) verifyCommand(ctx context.Context, ev *engine.Event) error {
	r.verifyMu.Lock()
	defer r.verifyMu.Unlock()
	if err := r.command(ctx, ev); err != nil {
		return fmt.Errorf("verify %s: %w", r.cfg.Resource, err)
	}
	return nil
}

// indexOf is the index of the volume of a number, -1 when there is none.
func (r *Resource) indexOf(number int) int {
	return slices.IndexFunc(r.cfg.Volumes, func(c VolumeConfig) bool { return int(c.Number) == number })
}

// PositionOf names a position of a View by the volume's number.
func (r *Resource) PositionOf(p engine.VerifyPosition) VerifyPosition {
	return VerifyPosition{Volume: r.cfg.Volumes[p.Volume].Number, Offset: p.Offset}
}
