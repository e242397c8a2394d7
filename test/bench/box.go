package main

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// box is the processors that stand for one machine of a pair; the zero box is
// all there are. Two boxes share no processor: a node does not wait for its
// peer's, and what goes from one to the other crosses between processors, as
// it must between machines.
type box struct {
	set  unix.CPUSet
	some bool
}

// boxes halves the processors this process may use. With a single one both
// boxes are that.
func boxes() (near, far box, err error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return near, far, fmt.Errorf("ask for the processors: %w", err)
	}
	near, far = halves(&all)
	return near, far, nil
}

// halves deals processors out; the odd one goes to the client's box.
func halves(all *unix.CPUSet) (near, far box) {
	near.some, far.some = true, true
	half := (all.Count() + 1) / 2
	for cpu := 0; near.set.Count()+far.set.Count() < all.Count(); cpu++ {
		switch {
		case !all.IsSet(cpu):
		case near.set.Count() < half:
			near.set.Set(cpu)
		default:
			far.set.Set(cpu)
		}
	}
	if far.set.Count() == 0 {
		far = near
	}
	return near, far
}

// start runs fn, which starts a program, so that the program is in the box.
func (b box) start(fn func() error) error {
	if !b.some {
		return fn()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("ask for the processors: %w", err)
	}
	if err := unix.SchedSetaffinity(0, &b.set); err != nil {
		return fmt.Errorf("use %d processors only: %w", b.set.Count(), err)
	}
	err := fn()
	if back := unix.SchedSetaffinity(0, &before); back != nil {
		err = errors.Join(err, fmt.Errorf("use all processors again: %w", back))
	}
	return err
}
