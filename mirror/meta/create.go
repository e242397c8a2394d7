package meta

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
)

// CreateParams describes new metadata.
type CreateParams struct {
	Placement Placement
	// DataBytes is the size of the volume: of the data device for External; for
	// Internal 0 takes all that is left.
	DataBytes int64
	// ActivitySlots is the size of the activity log; 0 is actlog.DefaultSlots.
	ActivitySlots int

	Cluster  string
	Resource string
	Volume   uint16
	Node     string
	Peer     string

	Device UUID  // made at random when zero
	Flags  Flags // AssumeClean, or none

	// LastEnd is where internal metadata ended when they were last seen, 0: not
	// known. They count as there if the device has grown since.
	LastEnd int64

	// Force overwrites metadata that is there already: ours or DRBD's, and, for
	// External, whatever the metadata device holds. It never cuts a filesystem.
	Force bool
}

// Create writes new metadata: generation just created (with AssumeClean one
// that the peer's has as well), disk Inconsistent, an empty bitmap. disk is the whole backing device for Internal and the metadata
// device for External. It refuses, with ErrExists, where there is metadata
// already, and with ErrWouldCut where a filesystem would lose its end. On an
// error the device has no metadata or still that which it had.
func Create(disk block.Disk, p CreateParams) (Super, error) {
	s, l, err := plan(disk, p)
	if err != nil {
		return Super{}, fmt.Errorf("create metadata of %s/%d: %w", p.Resource, p.Volume, err)
	}
	if err := admissible(disk, p, l, s.DataBytes); err != nil {
		return Super{}, fmt.Errorf("create metadata of %s/%d: %w", p.Resource, p.Volume, err)
	}
	if err := write(disk, &s, &l); err != nil {
		return Super{}, fmt.Errorf("create metadata of %s/%d: %w", p.Resource, p.Volume, err)
	}
	return s, nil
}

// plan turns the parameters into a first superblock and a layout.
func plan(disk block.Disk, p CreateParams) (Super, Layout, error) {
	size, err := checkDevice(disk)
	if err != nil {
		return Super{}, Layout{}, err
	}
	s := Super{
		Device: p.Device, Placement: p.Placement, DataBytes: p.DataBytes, ActivitySlots: p.ActivitySlots,
		Cluster: p.Cluster, Resource: p.Resource, Volume: p.Volume, Node: p.Node, Peer: p.Peer,
		Generations: genid.New(), Disk: state.Inconsistent, Flags: p.Flags | Clean,
	}
	if p.Flags&AssumeClean != 0 {
		s.Generations.Current = declaredEqual(p)
	}
	if s.ActivitySlots == 0 {
		s.ActivitySlots = actlog.DefaultSlots
	}
	if s.Device.IsZero() {
		if _, err := rand.Read(s.Device[:]); err != nil {
			return Super{}, Layout{}, fmt.Errorf("make a UUID: %w", err)
		}
	}
	end := size
	switch {
	case p.Flags&^AssumeClean != 0:
		return Super{}, Layout{}, fmt.Errorf("flags %s: new metadata may only have AssumeClean", p.Flags)
	case p.Placement == Internal && p.DataBytes == 0:
		if s.DataBytes = DataBytesFor(size, s.ActivitySlots); s.DataBytes <= 0 {
			return Super{}, Layout{}, fmt.Errorf("%w: it has %d bytes, metadata alone takes %d",
				ErrTooSmall, size, NeededFor(BlockBytes, s.ActivitySlots))
		}
	case p.Placement == External:
		end = NeededFor(p.DataBytes, s.ActivitySlots)
		if size < end {
			return Super{}, Layout{}, fmt.Errorf("%w: %d bytes of data need %d bytes of metadata, the metadata device has %d",
				ErrTooSmall, p.DataBytes, end, size)
		}
	case p.Placement != Internal:
		return Super{}, Layout{}, fmt.Errorf("metadata placement %d is neither internal nor external", p.Placement)
	}
	l, err := layoutOf(p.Placement, end, s.DataBytes, s.ActivitySlots)
	return s, l, err
}

// declaredEqual is the generation of two copies that the operator declared
// equal: the same on both nodes without their having met. It is as good an
// ancestor as a random one for as long as cluster, resource and volume are the
// same two disks; a disk of another pair is refused by its names.
func declaredEqual(p CreateParams) genid.ID {
	sum := sha256.Sum256(fmt.Appendf(nil, "hapair declared equal\x00%s\x00%s\x00%d", p.Cluster, p.Resource, p.Volume))
	return genid.FromRandom(binary.LittleEndian.Uint64(sum[:]))
}

// admissible refuses to overwrite what somebody may still need.
func admissible(disk block.Disk, p CreateParams, l Layout, dataBytes int64) error {
	places := l.supers[:]
	if p.Placement == Internal && p.LastEnd >= superBlocks*BlockBytes && p.LastEnd < disk.Geometry().SizeBytes && p.LastEnd%BlockBytes == 0 {
		before := superOffsets(Internal, p.LastEnd)
		places = append(places, before[:]...)
	}
	// What cannot be read is written over by force, which gives it another sector.
	if err := noMetadata(disk, places); err != nil && (!p.Force || !errors.Is(err, ErrExists) && !errors.Is(err, block.ErrIO)) {
		return err
	}
	c, found, err := Probe(disk)
	if p.Force && p.Placement == External && errors.Is(err, block.ErrIO) {
		return nil // the superblocks are what was probed
	}
	if err != nil || !found {
		return err
	}
	if p.Placement == Internal {
		return c.cut(dataBytes)
	}
	if !p.Force {
		return fmt.Errorf("%w: the metadata device holds a %s; wipe it (wipefs -a), or force", ErrWouldCut, c.Kind)
	}
	return nil
}

// noMetadata returns an error that wraps ErrExists when either superblock's
// place holds anything of ours, or DRBD's.
func noMetadata(disk block.Disk, places []int64) error {
	for _, at := range places {
		b, err := readBlock(disk, at)
		if err != nil {
			return err
		}
		s, _, err := decodeSuper(b)
		switch {
		case err == nil:
			return fmt.Errorf("%w at byte %d: %s/%d of node %s, device %s, %s, generation %s",
				ErrExists, at, s.Resource, s.Volume, s.Node, s.Device, s.Disk, s.Generations.Current)
		case !errors.Is(err, ErrNone):
			return fmt.Errorf("%w at byte %d: %w", ErrExists, at, err)
		case drbdMetadata(b) != "":
			return fmt.Errorf("%w at byte %d: %s", ErrExists, at, drbdMetadata(b))
		}
	}
	return nil
}

// Probe names what a device holds, as Recognise does.
func Probe(disk block.Disk) (Contents, bool, error) {
	size, err := checkDevice(disk)
	if err != nil {
		return Contents{}, false, err
	}
	head := make([]byte, 0, headBytes)
	err = readRange(disk, 0, min(headBytes, size), func(_ int64, data []byte) error {
		head = append(head, data...)
		return nil
	})
	if err != nil {
		return Contents{}, false, err
	}
	c, found := Recognise(head)
	return c, found, nil
}

// write lays the metadata down so that a crash in between leaves none.
func write(disk block.Disk, s *Super, l *Layout) error {
	if err := eraseSupers(disk, l.supers[:]...); err != nil {
		return err
	}
	if err := writeRing(disk, s, l); err != nil {
		return err
	}
	if err := writeEmptyBitmap(disk, s, l); err != nil {
		return err
	}
	if err := flush(disk); err != nil {
		return err
	}
	for range superBlocks {
		s.Sequence++
		if err := writeSuper(disk, s, l); err != nil {
			return err
		}
	}
	return nil
}

// writeRing writes a ring without transactions.
func writeRing(disk block.Disk, s *Super, l *Layout) error {
	return writeBlocks(disk, l.RingOffset, l.RingBlocks, func(_ int, b []byte) error {
		return encodeActivity(b, s.Device, s.ActivitySlots, actlog.Transaction{})
	})
}

// writeSuper writes one superblock at the place of its sequence number, and
// flushes.
func writeSuper(disk block.Disk, s *Super, l *Layout) error {
	err := writeBlocks(disk, l.supers[s.Sequence%superBlocks], 1, func(_ int, b []byte) error { return encodeSuper(b, s, l) })
	if err != nil {
		return err
	}
	return flush(disk)
}

func eraseSupers(disk block.Disk, supers ...int64) error {
	for _, at := range supers {
		err := writeBlocks(disk, at, 1, func(_ int, b []byte) error { clear(b); return nil })
		if err != nil {
			return err
		}
	}
	return flush(disk)
}

// Wipe destroys the metadata of a device by erasing both superblocks.
func Wipe(disk block.Disk, place Placement) error {
	size, err := checkDevice(disk)
	if err != nil {
		return fmt.Errorf("wipe metadata: %w", err)
	}
	supers := superOffsets(place, size)
	if err := eraseSupers(disk, supers[:]...); err != nil {
		return fmt.Errorf("wipe metadata: %w", err)
	}
	return nil
}
