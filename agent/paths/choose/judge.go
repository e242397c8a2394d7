package choose

import (
	"fmt"
	"time"
)

// judge brings what a path is good for up to now.
func (c *Chooser) judge(x *path) {
	well, why := c.well(x)
	switch {
	case well == Bad && x.state != Bad:
		x.losses++
		x.recent++
		x.state, x.why, x.heard = Bad, why, false
	case well == Bad:
		x.why = why
	case x.state == Bad && well == Good:
		x.hold = c.holdOf(x)
		x.state, x.why = Held, fmt.Sprintf("well again, must be so for %s", x.hold)
	case x.state == Held && c.now-x.since >= x.hold:
		x.state, x.why = Good, "well for long enough"
	case x.state == Unknown && well == Good:
		x.state, x.why = Good, why
	case x.state == Good && x.recent > 0 && c.now-x.since >= forgiven*x.hold:
		x.recent = 0
	}
}

// holdOf is how long a path must be well before it counts again.
func (c *Chooser) holdOf(x *path) time.Duration {
	hold := c.cfg.Hold
	for range x.recent - 1 {
		if hold >= c.cfg.HoldMax {
			break
		}
		hold *= 2
	}
	return min(hold, c.cfg.HoldMax)
}

// well is what the evidence says now: Good, Bad, or Unknown when it says nothing.
func (c *Chooser) well(x *path) (State, string) {
	switch {
	case x.lost:
		return Bad, x.lostWhy
	case c.silent(x):
		return Bad, fmt.Sprintf("frames of full size have not come back for %s, over another path they do", c.patience(x).Round(time.Millisecond))
	case x.unasked:
		return Good, "the heartbeat is answered; the peer's release does not answer frames of full size"
	case x.heard && !(x.waits && c.now-x.oldest >= c.patience(x)):
		return Good, "frames of full size come back"
	}
	return Unknown, ""
}

// silent reports whether a question went unanswered for too long while another
// path has carried later ones there and back, and goes on to. Without that it may
// be the peer that is slow, or this node; and a peer that stood still answers over
// all paths at once, over one of them first.
func (c *Chooser) silent(x *path) bool {
	patience := c.patience(x)
	return x.waits && c.now-x.oldest >= patience && x.beside && c.now-x.besideAt >= patience/2
}

// patience is how long a question may go unanswered on a path. A busy machine
// answers late, over one path later than over the other.
func (c *Chooser) patience(x *path) time.Duration {
	if x.state == Unknown {
		return 10 * c.cfg.Patience
	}
	return min(max(c.cfg.Patience, 2*c.worst), 5*c.cfg.Patience)
}
