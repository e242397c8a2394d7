package meta

import (
	"errors"
	"fmt"

	"hapair/mirror/block"
)

// ErrTwice: metadata of one copy are at two places: a move was not finished.
var ErrTwice = errors.New("the metadata of this copy are at two places")

// Move lays the metadata of a copy down at another place, with all that they
// say, and then erases them where they are; both disks are held by the caller.
// to is the data's for Internal, which must have room behind the data, and one of
// its own for External; force overwrites what that holds.
//
// Cut off anywhere, the metadata are where they were, or at both places; moved
// again then, they are taken from where they were written last.
func Move(from block.Disk, at Placement, to block.Disk, place Placement, want Identity, force bool) (Super, error) {
	s, err := move(from, at, to, place, want, force)
	if err != nil {
		return s, fmt.Errorf("move metadata of %s/%d from %s to %s: %w", want.Resource, want.Volume, at, place, err)
	}
	return s, nil
}

func move(from block.Disk, at Placement, to block.Disk, place Placement, want Identity, force bool) (Super, error) {
	done, _, doneErr := Inspect(to, place)
	if doneErr == nil {
		doneErr = want.judge(&done)
	}
	src, err := open(from, at, want)
	if err != nil {
		if doneErr == nil && errors.Is(err, ErrNone) {
			return done, nil // moved already
		}
		return Super{}, err
	}
	again := doneErr == nil && done.Device == src.Super.Device
	if again && whole(&done, &src.Super) {
		return done, eraseOld(from, &src) // only that was left to do
	}
	l, err := mayMove(&src, to, place, again, force)
	if err != nil {
		return Super{}, err
	}
	s := src.Super
	s.Placement = place
	if err := lay(to, &s, &src, &l); err != nil {
		return Super{}, err
	}
	return s, eraseOld(from, &src)
}

// whole reports whether a move that was cut off had written all there is at the new
// place, and the copy was not used from the old one since. From outside it is not used
// while metadata are inside (Alone), so those inside may have gone on. From inside it
// may have been, and what the move wrote outside is two superblocks ahead: less than
// two, and there is a younger one inside.
func whole(done, src *Super) bool {
	if done.Placement == External {
		return done.Sequence >= src.Sequence+superBlocks
	}
	return done.Sequence > src.Sequence
}

// eraseOld erases the superblocks that were moved, the younger last: cut off in
// between, the older one is not found alone, and used.
func eraseOld(from block.Disk, src *Snapshot) error {
	for i := range uint64(superBlocks) {
		if err := eraseSupers(from, src.Layout.supers[(src.Super.Sequence+1+i)%superBlocks]); err != nil {
			return err
		}
	}
	return nil
}

// mayMove is where the metadata would lie. Nothing but what an earlier move left
// is overwritten there.
func mayMove(src *Snapshot, to block.Disk, place Placement, again, force bool) (Layout, error) {
	s := &src.Super
	size, err := checkDevice(to)
	if err != nil {
		return Layout{}, err
	}
	if s.Placement == place {
		return Layout{}, fmt.Errorf("%w: they are %s already", ErrExists, place)
	}
	need, end := NeededFor(s.DataBytes, s.ActivitySlots), size
	behind := size
	if place == Internal {
		behind -= (s.DataBytes + BlockBytes - 1) / BlockBytes * BlockBytes
	} else {
		end = need
	}
	if behind < need {
		return Layout{}, fmt.Errorf("%w: the metadata take %d bytes, and %d are free there: %d more are needed", ErrTooSmall, need, max(behind, 0), need-max(behind, 0))
	}
	l, err := layoutOf(place, end, s.DataBytes, s.ActivitySlots)
	if err != nil {
		return Layout{}, err
	}
	l.supers = superOffsets(place, size)
	if again || force {
		return l, nil
	}
	if err := noMetadata(to, l.supers[:]); err != nil || place == Internal {
		return l, err
	}
	if c, found, err := Probe(to); err != nil || found {
		return l, errors.Join(err, fmt.Errorf("%w: the device for the metadata holds a %s; wipe it (wipefs -a), or force", ErrWouldCut, c.Kind))
	}
	return l, nil
}

// lay writes metadata that say what a snapshot does, so that a cut in between
// leaves none there.
func lay(to block.Disk, s *Super, src *Snapshot, l *Layout) error {
	if err := eraseSupers(to, l.supers[:]...); err != nil {
		return err
	}
	st := &Store{disk: to, fixed: *s, layout: *l}
	if err := st.writeContents(src.Log.Restate(), src.Bitmap, l); err != nil {
		return err
	}
	for range superBlocks {
		s.Sequence++
		if err := writeSuper(to, s, l); err != nil {
			return err
		}
	}
	return nil
}

// Alone returns an error that wraps ErrTwice where the data disk of a copy with
// external metadata holds internal ones of the same copy: which of them count
// only another Move can say.
func Alone(data block.Disk, s *Super) error {
	inner, _, err := Inspect(data, Internal)
	if err == nil && inner.Device == s.Device {
		return fmt.Errorf("%w: in a file or device of their own, and at the end of the disk", ErrTwice)
	}
	return nil // none there, or those of somebody else, long overwritten
}

// upgrades bring metadata of a format version to the next. There is one version
// so far.
var upgrades = map[int]func(disk block.Disk, place Placement) error{}

// Convert brings metadata to the newest format version, step by step, and says
// which they had. What is newer than this release, or damaged, is refused.
func Convert(disk block.Disk, place Placement) (was int, err error) {
	return convert(disk, place, upgrades, FormatVersion)
}

func convert(disk block.Disk, place Placement, steps map[int]func(block.Disk, Placement) error, newest int) (was int, err error) {
	if was, err = versionOf(disk, place); err != nil {
		return 0, fmt.Errorf("convert metadata (%s): %w", place, err)
	}
	for v := was; v < newest; v++ {
		step := steps[v]
		if step == nil {
			return was, fmt.Errorf("convert metadata (%s): %w: version %d, there is no way to version %d", place, ErrVersion, v, newest)
		}
		if err := step(disk, place); err != nil {
			return was, fmt.Errorf("convert metadata (%s) from version %d: %w", place, v, err)
		}
	}
	return was, nil
}

// versionOf is the format version of intact metadata that this release reads.
func versionOf(disk block.Disk, place Placement) (int, error) {
	if _, _, err := Inspect(disk, place); err != nil {
		return 0, err
	}
	return FormatVersion, nil // unseal lets no other pass
}
