package vm

import "testing"

// What is measured twice is the same, within what a machine believes.
func TestTicksPerMillisecond(t *testing.T) {
	a, b := ticksPerMillisecond(), ticksPerMillisecond()
	if ticks() == 0 {
		t.Skip("this processor has no counter that a machine could be given")
	}
	if a < b*99/100 || a > b*101/100 {
		t.Errorf("%d kHz, and then %d", a, b)
	}
}
