package ledger

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"
)

// Vacate says that the machine of another voter is gone for good: from now on it is
// refused here, and by every voter that is told, whatever comes of it; one with an empty
// directory takes its place. It is refused while the machine answers. told are the
// voters that know when it returns; the others hear of it when they are greeted.
func (l *Ledger) Vacate(ctx context.Context, node, reason string) (told []string, err error) {
	p := l.peer(node)
	if p == nil {
		return nil, fmt.Errorf("replace %s: it is no other voter: %w", node, ErrInvalid)
	}
	if err := l.usable(); err != nil {
		return nil, fmt.Errorf("replace %s: %w", node, err)
	}
	if l.isBlank() {
		return nil, fmt.Errorf("replace %s: %w", node, ErrBlank)
	}
	if p.answers() || !l.silent(node) {
		return nil, fmt.Errorf("replace %s: %w", node, ErrAnswers)
	}
	err = l.give(node, reason, func() (seat, bool) {
		have, known := l.seat.by[node]
		next := have.next("")
		next.Open = false
		return next, !known || have.Machine != "" || have.Open
	})
	if err != nil {
		return nil, fmt.Errorf("replace %s: %w", node, err)
	}
	return l.spread(ctx, node), nil
}

// silent tells whether nothing that a node was promised by its last word stands.
func (l *Ledger) silent(node string) bool {
	now := l.clock()
	l.seat.mu.Lock()
	defer l.seat.mu.Unlock()
	at, heard := l.seat.heard[node]
	return !heard || now >= at+l.outlast()
}

// spread greets the voters but one anew, so that they hear of a seat that has changed.
func (l *Ledger) spread(ctx context.Context, but string) (told []string) {
	for node := range l.others() {
		if node == but {
			continue
		}
		c, err := l.dial(ctx, node, PurposeCall)
		if err != nil {
			l.log.Info("not told of a replaced machine yet", zap.String("peer", node), zap.Error(err))
			continue
		}
		c.Close() //nolint:errcheck // it has heard the greeting
		told = append(told, node)
	}
	slices.Sort(told)
	return told
}
