package meta

import (
	"fmt"

	"hapair/mirror/actlog"
	"hapair/mirror/dirty"
)

// Layout says where on the metadata device everything is, in bytes.
type Layout struct {
	Start, End   int64 // of the metadata; outside lies data
	RingOffset   int64
	RingBlocks   int
	BitmapOffset int64
	BitmapPages  int

	supers [2]int64
}

// superBlocks is the number of superblocks.
const superBlocks = 2

// Needed is the size of the metadata of a volume of dataBytes with an activity
// log of the default size.
func Needed(dataBytes int64) int64 { return NeededFor(dataBytes, actlog.DefaultSlots) }

// NeededFor is the size of the metadata of a volume of dataBytes with an
// activity log of so many slots.
func NeededFor(dataBytes int64, slots int) int64 {
	return int64(superBlocks+actlog.RingBlocks(slots)+dirty.PagesFor(dataBytes)) * BlockBytes
}

// DataBytesFor is how much of a device of deviceBytes is left for data beside
// internal metadata: a multiple of BlockBytes, 0 or less when nothing is.
func DataBytesFor(deviceBytes int64, slots int) int64 {
	const unit = dirty.PageExtents * dirty.ExtentBytes // of data per page
	blocks := deviceBytes/BlockBytes - int64(superBlocks+actlog.RingBlocks(slots))
	if blocks < 2 {
		return 0
	}
	// Of every unit/BlockBytes+1 blocks, one is a bitmap page.
	pages := (blocks + unit/BlockBytes) / (unit/BlockBytes + 1)
	return (blocks - pages) * BlockBytes
}

// layoutOf computes the layout on a metadata device (or area) that ends at end.
func layoutOf(place Placement, end, dataBytes int64, slots int) (Layout, error) {
	switch {
	case dataBytes < 512 || dataBytes%512 != 0 || dataBytes > dirty.MaxSizeBytes:
		return Layout{}, fmt.Errorf("a volume of %d bytes, want a multiple of 512 up to %d", dataBytes, int64(dirty.MaxSizeBytes))
	case slots < actlog.MinSlots || slots > actlog.MaxSlots:
		return Layout{}, fmt.Errorf("an activity log of %d slots, want %d to %d", slots, actlog.MinSlots, actlog.MaxSlots)
	case end < 0 || end%BlockBytes != 0:
		return Layout{}, fmt.Errorf("metadata that ends at byte %d, want a multiple of %d", end, BlockBytes)
	}
	l := Layout{End: end, RingBlocks: actlog.RingBlocks(slots), BitmapPages: dirty.PagesFor(dataBytes)}
	if place == Internal {
		l.Start = (dataBytes + BlockBytes - 1) / BlockBytes * BlockBytes
		l.supers = [2]int64{end - 2*BlockBytes, end - BlockBytes}
		l.RingOffset = l.Start
	} else {
		l.supers = [2]int64{0, BlockBytes}
		l.RingOffset = superBlocks * BlockBytes
	}
	l.BitmapOffset = l.RingOffset + int64(l.RingBlocks)*BlockBytes
	if need := l.Start + NeededFor(dataBytes, slots); end < need {
		return Layout{}, fmt.Errorf("%w: metadata of %d bytes of data ends at byte %d, only %d are there", ErrTooSmall, dataBytes, need, end)
	}
	return l, nil
}

// superOffsets is where the superblocks are on a device of deviceBytes.
func superOffsets(place Placement, deviceBytes int64) [2]int64 {
	if place == Internal {
		end := deviceBytes / BlockBytes * BlockBytes
		return [2]int64{end - 2*BlockBytes, end - BlockBytes}
	}
	return [2]int64{0, BlockBytes}
}
