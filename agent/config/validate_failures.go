package config

import (
	"time"

	"hapair/failover/plan"
)

// failback wants a node to go back to.
func (c *checker) failback(at string, r *Resource) {
	if r.AutoFailback && r.PreferredNode == "" {
		c.fail(at+".auto_failback", "add preferred_node: "+c.cfg.Nodes[0].Name, "auto_failback, and no node to go back to")
	}
	if r.FailbackAfter < MinFailback || r.FailbackAfter > MaxFailback {
		c.fail(at+".failback_after", "", "failback_after is %s; between %s and %s", r.FailbackAfter, MinFailback, MaxFailback)
	}
	if err := r.Failures.Policy().Validate(plan.Defaults().RetryDelay); err != nil {
		c.fail(at+".failures", "", "%v", err)
	}
}

// failures wants a policy by which a service that ends soon after each start
// reaches the peer.
func (c *checker) failures(at string, r *Resource, s *Service) {
	where, f := at+".failures", r.Failures
	if s.Failures != nil {
		f = *s.Failures
		if err := f.Policy().Validate(plan.Defaults().RetryDelay); err != nil {
			c.fail(where, "", "%v", err)
			return
		}
	} else {
		where = at + ".monitor_interval"
	}
	between, least := s.MonitorInterval*time.Duration(f.Threshold-1), min(f.Within, f.Forget)
	if between >= least {
		c.fail(where, "a longer within and forget, a shorter monitor_interval, or a threshold of 1",
			"a check every %s finds %d failures in %s at the earliest, but they count for %s: what keeps failing would never reach the peer",
			s.MonitorInterval, f.Threshold, between, least)
	}
}
