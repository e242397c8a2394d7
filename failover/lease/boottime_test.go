package lease

import (
	"testing"
	"time"
)

func TestBoottimeNeverGoesBack(t *testing.T) {
	clock := Boottime()
	last := clock()
	if last <= 0 {
		t.Fatalf("boot time is %v", last)
	}
	for deadline := time.Now().Add(20 * time.Millisecond); time.Now().Before(deadline); {
		now := clock()
		if now < last {
			t.Fatalf("went back from %v to %v", last, now)
		}
		last = now
	}
}

func TestLeaseValid(t *testing.T) {
	for _, c := range []struct {
		lease Lease
		now   time.Duration
		want  bool
	}{
		{Lease{}, 0, false},
		{Lease{Until: time.Hour}, 0, false},
		{Lease{Tenure: 1, Until: 5}, 4, true},
		{Lease{Tenure: 1, Until: 5}, 5, false},
		{Lease{Tenure: 1}, 0, false},
	} {
		if got := c.lease.Valid(c.now); got != c.want {
			t.Errorf("%+v at %v: %v", c.lease, c.now, got)
		}
	}
}
