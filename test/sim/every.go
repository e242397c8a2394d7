package sim

// NewEvery makes a world in which all the others meet: applications are answered
// by protocol B or A, disks hang, volumes grow, somebody gives up sides for no
// reason, operators verify, and what has rotted, or cannot be read, is found in the
// end. The laws are those of each.
func NewEvery(seed uint64, keepLog bool) *World {
	w := NewHang(seed, keepLog)
	w.every, w.mends = 2*w.every, w.mends/2 // the copies have to be in line for a while
	w.roomy()
	w.loosen(seed)
	w.givesUp = seed%5 < 2
	w.verifies, w.checks = seed%3 > 0, 200 // no volume grows while a verify runs
	return w
}
