package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// surrenderPatience bounds how long the other side is waited for: meanwhile nothing
// else is done to this node's group.
const surrenderPatience = 5 * time.Second

// Surrender discards this node's ledger in favour of the peer's, whatever the
// two went through: the operator's way out of a split brain, on the node whose
// history is given up. With it go the records of all resources, so it is refused
// while this node holds a lease of one (ErrServes). It is refused where there is
// nobody to surrender to (ErrNotSplit), and where the other side gives up too, or has
// no group of its own (ErrGivesUp): of two that surrender to each other nobody would
// have a ledger left.
func (l *Ledger) Surrender(ctx context.Context, reason string) error {
	node := l.SplitFrom()
	if node == "" && l.pair() {
		node = l.dataPeer()
	}
	if node == "" {
		return fmt.Errorf("surrender: %w", ErrNotSplit)
	}
	if err := l.surrenderTo(ctx, node, reason); err != nil {
		return fmt.Errorf("surrender to %s: %w", node, err)
	}
	l.poke()
	return nil
}

// surrenderTo says in every greeting that this node gives up before it asks for the
// other's, and until its identity says so: of two that do this at once, one at least
// sees it of the other.
func (l *Ledger) surrenderTo(ctx context.Context, node, reason string) error {
	l.admin.Lock()
	defer l.admin.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, surrenderPatience)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	l.surrendering.Store(true)
	defer l.surrendering.Store(false)
	you, err := l.askGreeting(ctx, node)
	if err != nil {
		return err
	}
	if err := l.maySurrender(&you); err != nil {
		return err
	}
	return l.adopt(you, "surrendered: "+reason)
}

// maySurrender judges by a greeting that was asked for just now. admin is held.
func (l *Ledger) maySurrender(you *hello) error {
	switch me := l.greeting(); {
	case you.Surrendering, you.Joining, you.Blank, you.Left, len(you.Voters) == 0:
		return fmt.Errorf("%s: %w", you.Node, ErrGivesUp)
	case judge(me, *you) != split:
		return fmt.Errorf("%s is of the same history: %w", you.Node, ErrNotSplit)
	}
	if serves := l.hands.valid(); len(serves) > 0 {
		return fmt.Errorf("%q: %w", serves, ErrServes)
	}
	return nil
}

// valid names the resources whose lease this node holds, sorted.
func (h *hands) valid() []string {
	now := h.l.clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name, held := range h.holds {
		if now < held.until {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// askGreeting asks a node who it is, whatever it is to this one.
func (l *Ledger) askGreeting(ctx context.Context, node string) (you hello, err error) {
	c, err := l.cfg.Streams.Dial(ctx, node, PurposeCall)
	if err != nil {
		return you, err
	}
	err = exchange(c, 2*l.cfg.Timing.Heartbeat, l.greeting(), &you)
	c.Close() //nolint:errcheck // only the greeting was wanted
	if err == nil {
		err = you.check()
	}
	return you, err
}
