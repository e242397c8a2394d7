package main

import (
	"slices"
	"testing"
	"time"
)

// Each is looked at in its own time.
func TestDue(t *testing.T) {
	every := []time.Duration{time.Second, 3 * time.Second, time.Minute}
	now := time.Unix(1000, 0)
	d := newDue(len(every), now, func(i int) time.Duration { return every[i] })
	counts := make([]int, len(every))
	for now.Before(time.Unix(1060, 0)) {
		wait := d.wait(now)
		if wait <= 0 {
			t.Fatalf("at %v nothing to wait for", now)
		}
		now = now.Add(wait)
		for i, is := range d.take(now) {
			if is {
				counts[i]++
			}
		}
	}
	if !slices.Equal(counts, []int{60, 20, 1}) {
		t.Errorf("looked %v times within a minute", counts)
	}
	now = now.Add(time.Hour) // the machine slept
	if which := d.take(now); !slices.Equal(which, []bool{true, true, true}) || d.wait(now) != time.Second {
		t.Errorf("%v, then %v", which, d.wait(now))
	}
}
