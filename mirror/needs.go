package mirror

import (
	"context"
	"errors"
	"time"

	"hapair/mirror/engine"
	"hapair/mirror/wire"
)

// ErrStale is what a Ledger returns when the record has moved on: it holds
// another token than the change expected, or refuses it for good. The record
// that comes with it is the present one.
var ErrStale = errors.New("the ledger's record has moved on")

// ErrUndecided says that the ledger could not be changed in time, most likely for
// want of a quorum.
var ErrUndecided = errors.New("the ledger does not decide")

// Ledger changes the in-sync set. GiveUp is Exclude for a Primary that takes its
// own copy out. All methods compare token with the record's
// and are durable at a majority when they return nil. ErrStale says that the
// change was decided against, or happened already; any other error that
// nothing is known, and the mirror asks again.
type Ledger interface {
	Exclude(ctx context.Context, resource, node string, token uint64) (wire.Record, error)
	GiveUp(ctx context.Context, resource, node string, token uint64) (wire.Record, error)
	Include(ctx context.Context, resource, node string, token uint64) (wire.Record, error)
}

// Clock returns the time since an arbitrary start, counting suspend.
type Clock func() time.Duration

// Observer hears what happens. Its methods are called from many goroutines,
// with no lock held, and must not block.
type Observer interface {
	// Changed: the View of the resource may have changed.
	Changed(resource string)
	// Linked: a session with the peer began (over path) or ended.
	Linked(resource, path string, up bool)
	// Moved: the session has gone on over another path, or over the same one again.
	Moved(resource, from, to string, because error)
	// Happened: something an operator would want to read.
	Happened(resource string, topic engine.Topic, text string)
	// Trouble: something an operator has to look at.
	Trouble(resource, text string)
	// Proven: a verify has found the copies of a volume equal in a range.
	Proven(resource string, volume uint16, offset, length int64)
	// SplitVictim: by the policies this node gives up what only it has.
	SplitVictim(resource, why string)
	// Deposed: somebody else holds a higher token; the device must go.
	Deposed(resource string, why error)
}
