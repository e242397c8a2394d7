package check

import (
	"fmt"
	"time"
)

// Pen is the pen law: at most one node may answer at any instant, and a node
// answers only while it may.
type Pen struct {
	holder string
	until  time.Duration
}

// Granted records that the lease of a node runs until an instant. It is an
// error while another's still runs.
func (p *Pen) Granted(now time.Duration, node string, until time.Duration) error {
	if p.holder != "" && p.holder != node && now < p.until {
		return fmt.Errorf("pen law: %s is given a lease while that of %s runs for another %v", node, p.holder, p.until-now)
	}
	p.holder, p.until = node, until
	return nil
}

// Returned records that a node gave its lease back.
func (p *Pen) Returned(node string) {
	if p.holder == node {
		p.holder, p.until = "", 0
	}
}

// Answers judges a successful answer.
func (p *Pen) Answers(now time.Duration, node, request string) error {
	switch {
	case p.holder != node:
		return fmt.Errorf("pen law: %s answers %s, the lease is %q's", node, request, p.holder)
	case now >= p.until:
		return fmt.Errorf("pen law: %s answers %s, its lease ran out %v ago", node, request, now-p.until)
	}
	return nil
}
