package mirror

import (
	"context"
	"fmt"

	"hapair/mirror/block"
)

// Probe sends a flush through the first volume, as its device would, and returns
// when it is answered: everything that an application's write waits for, and no
// data of anybody. It fails at once on a node that is not Primary. When ctx ends
// first the flush is left to itself.
func (r *Resource) Probe(ctx context.Context) error {
	done := make(chan error, 1)
	r.vols[0].Submit(&block.Request{Op: block.Flush, Done: func(_ *block.Request, err error) { done <- err }})
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("probe: %w", ctx.Err())
	}
}
