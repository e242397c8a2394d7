package meta

import (
	"errors"
	"fmt"
	"slices"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
)

// Identity is whose metadata is expected. Empty strings and a zero UUID expect
// nothing; the volume counts when a resource is named.
type Identity struct {
	Cluster  string
	Resource string
	Volume   uint16
	Node     string
	Device   UUID
	// LastEnd is where internal metadata ended when they were last seen, 0: not
	// known. There they are looked for where the device has grown since.
	LastEnd int64
}

// Snapshot is what was found on a device.
type Snapshot struct {
	Super      Super
	Layout     Layout
	Bitmap     *dirty.Bitmap
	Log        *actlog.Log // restored; its transactions go on from those on disk
	HotExtents []uint32    // sorted; to be resynced unless Super.Flags has Clean
	// Repairs tells what was damaged and how it was made good, one sentence each,
	// for the log. Everything unreadable counts as out of sync.
	Repairs []string

	unreadable int // blocks of the ring and the bitmap
}

// unreadableMax is how many blocks of ring and bitmap may be unreadable: a power cut
// leaves one of each, a flaw of the medium a few neighbours. A disk with more of them
// fails, and is not asked for every block, seconds each.
const unreadableMax = 8

// Open reads the metadata of a device and judges it. The error wraps ErrNone,
// ErrTorn, ErrVersion, ErrForeign or ErrMalformed and says what was found. One
// damaged superblock, the activity log block a crash tore, and damaged bitmap
// pages are made good, and so are a few blocks of ring and bitmap that cannot be
// read; see Snapshot.Repairs. A superblock that cannot be read is an error, as of the
// disk.
func Open(disk block.Disk, place Placement, want Identity) (*Store, Snapshot, error) {
	snap, err := open(disk, place, want)
	if err != nil {
		return nil, Snapshot{}, fmt.Errorf("open metadata of %s/%d (%s): %w", want.Resource, want.Volume, place, err)
	}
	return newStore(disk, snap), snap, nil
}

// Inspect reads the superblocks only.
func Inspect(disk block.Disk, place Placement) (Super, Layout, error) {
	var snap Snapshot
	if err := snap.readSupers(disk, place, 0); err != nil {
		return Super{}, Layout{}, fmt.Errorf("inspect metadata (%s): %w", place, err)
	}
	return snap.Super, snap.Layout, nil
}

func open(disk block.Disk, place Placement, want Identity) (Snapshot, error) {
	var snap Snapshot
	if err := snap.readSupers(disk, place, want.LastEnd); err != nil {
		return snap, err
	}
	if err := want.judge(&snap.Super); err != nil {
		return snap, err
	}
	if err := snap.readBitmap(disk); err != nil {
		return snap, err
	}
	lost, err := snap.readRing(disk)
	if err != nil {
		return snap, err
	}
	if lost != nil || snap.Super.Flags&FullSync != 0 {
		if err := snap.startOver(disk, lost); err != nil {
			return snap, err
		}
	}
	return snap, nil
}

func (want Identity) judge(s *Super) error {
	switch {
	case want.Cluster != "" && want.Cluster != s.Cluster:
		return fmt.Errorf("%w: cluster %q, want %q", ErrForeign, s.Cluster, want.Cluster)
	case want.Resource != "" && (want.Resource != s.Resource || want.Volume != s.Volume):
		return fmt.Errorf("%w: volume %s/%d, want %s/%d", ErrForeign, s.Resource, s.Volume, want.Resource, want.Volume)
	case want.Node != "" && want.Node != s.Node:
		return fmt.Errorf("%w: node %q, want %q", ErrForeign, s.Node, want.Node)
	case !want.Device.IsZero() && want.Device != s.Device:
		return fmt.Errorf("%w: device %s, want %s", ErrForeign, s.Device, want.Device)
	}
	return nil
}

// readSupers reads the superblocks at the end of the device, or where it ended
// before it has grown. What a device got with its growth may be metadata of this
// copy that are long out of date: then those count that were written last.
func (snap *Snapshot) readSupers(disk block.Disk, place Placement, last int64) error {
	size, err := checkDevice(disk)
	if err != nil {
		return err
	}
	err = snap.readSupersOf(disk, place, size)
	if place != Internal || last < superBlocks*BlockBytes || last >= size || last%BlockBytes != 0 {
		return err
	}
	var before Snapshot
	if was := before.readSupersOf(disk, place, last); was != nil {
		if errors.Is(was, block.ErrIO) {
			return was // there may be some, and be younger
		}
		return err
	}
	none := errors.Is(err, ErrNone) || errors.Is(err, ErrTorn)
	if none || err == nil && before.Super.Device == snap.Super.Device && before.Super.Sequence > snap.Super.Sequence {
		*snap, err = before, nil
	}
	return err
}

// readSupersOf takes the younger of the two superblocks of a device of so many
// bytes. One of them may be damaged: the crash tore the write of it, and nothing
// depended on that yet. One that cannot be read is another thing: it may have been
// durable, and the older one say "clean", or a generation that is over.
func (snap *Snapshot) readSupersOf(disk block.Disk, place Placement, size int64) error {
	supers := superOffsets(place, size)
	var found [superBlocks]Super
	var layouts [superBlocks]Layout
	var bad [superBlocks]error
	for i, at := range supers {
		b, err := readBlock(disk, at)
		if err != nil {
			return err
		}
		if found[i], layouts[i], err = decodeSuper(b); err != nil {
			bad[i] = fmt.Errorf("superblock %d at byte %d: %w", i, at, err)
		} else if found[i].Sequence%superBlocks != uint64(i) {
			bad[i] = fmt.Errorf("superblock %d at byte %d: %w: it has sequence number %d", i, at, ErrMalformed, found[i].Sequence)
		}
	}
	young, err := younger(found, bad)
	if err != nil {
		return err
	}
	snap.Super, snap.Layout = found[young], layouts[young]
	snap.Layout.supers = supers
	if other := bad[1-young]; other != nil {
		snap.Repairs = append(snap.Repairs, other.Error()+"; the other one is used")
	}
	return snap.fits(place, size)
}

// younger picks the superblock to believe.
func younger(found [superBlocks]Super, bad [superBlocks]error) (int, error) {
	for i, err := range bad {
		switch {
		case err == nil:
		case bad[1-i] != nil:
			return 0, fmt.Errorf("%w; %w", bad[0], bad[1])
		case errors.Is(err, ErrTorn) || errors.Is(err, ErrNone): // Create, or a crash
			return 1 - i, nil
		default: // intact, but of another release or nonsense: the other may be outdated
			return 0, err
		}
	}
	if found[0].Device != found[1].Device {
		return 0, fmt.Errorf("%w: the superblocks are of two devices, %s and %s", ErrForeign, found[0].Device, found[1].Device)
	}
	if found[0].Sequence > found[1].Sequence {
		return 0, nil
	}
	return 1, nil
}

// fits checks the superblock against the device it was found on.
func (snap *Snapshot) fits(place Placement, size int64) error {
	s, l := &snap.Super, &snap.Layout
	switch {
	case s.Placement != place:
		return fmt.Errorf("%w: the metadata is %s, want %s", ErrForeign, s.Placement, place)
	case place == Internal && l.End != size:
		return fmt.Errorf("%w: the device had %d bytes when the metadata was made, it has %d", ErrForeign, l.End, size)
	case l.End > size:
		return fmt.Errorf("%w: the metadata has %d bytes, the device %d", ErrTooSmall, l.End, size)
	}
	return nil
}

// readBitmap loads the bitmap. A page that cannot be read, or not as such, counts as
// all out of sync; an intact page of another device is refused.
func (snap *Snapshot) readBitmap(disk block.Disk) error {
	snap.Bitmap = dirty.New(snap.Super.DataBytes)
	l := &snap.Layout
	pageAt := func(at int64) int { return int((at - l.BitmapOffset) / BlockBytes) }
	return readEach(disk, l.BitmapOffset, int64(l.BitmapPages)*BlockBytes, func(at int64, data []byte) error {
		for page := pageAt(at); len(data) > 0; page, data = page+1, data[BlockBytes:] {
			if err := snap.loadPage(page, data[:BlockBytes]); err != nil {
				return err
			}
		}
		return nil
	}, func(at int64, err error) error {
		if snap.unreadable++; snap.unreadable > unreadableMax {
			return err
		}
		snap.lostPage(pageAt(at), err)
		return nil
	})
}

func (snap *Snapshot) loadPage(page int, b []byte) error {
	device, payload, err := decodePage(b, page)
	if err == nil && device != snap.Super.Device {
		return fmt.Errorf("bitmap page %d: %w: device %s, want %s", page, ErrForeign, device, snap.Super.Device)
	}
	if err == nil {
		err = snap.Bitmap.LoadPage(page, payload)
	}
	if err != nil {
		snap.lostPage(page, err)
	}
	return nil
}

// lostPage marks all of a page. It is stale then, and written some time.
func (snap *Snapshot) lostPage(page int, err error) {
	const span = dirty.PageExtents * dirty.ExtentBytes
	snap.Bitmap.Set(int64(page)*span, span)
	snap.Repairs = append(snap.Repairs, fmt.Sprintf("bitmap page %d: %v; its %d bytes count as out of sync", page, err, int64(span)))
}

// readRing restores the activity log. lost says why it cannot be trusted: a block that
// cannot be read may have been durable, unlike one that was torn. err is that of a
// device that cannot be read or holds another's log.
func (snap *Snapshot) readRing(disk block.Disk) (lost, err error) {
	l := &snap.Layout
	var txs []actlog.Transaction
	var bad, unreadable []error
	err = readEach(disk, l.RingOffset, int64(l.RingBlocks)*BlockBytes, func(at int64, data []byte) error {
		for ; len(data) > 0; at, data = at+BlockBytes, data[BlockBytes:] {
			tx, wrong, err := snap.loadTransaction(uint64(at-l.RingOffset)/BlockBytes, data[:BlockBytes])
			switch {
			case err != nil:
				return err
			case wrong != nil:
				bad = append(bad, wrong)
			case tx.Number > 0:
				txs = append(txs, tx)
			}
		}
		return nil
	}, func(at int64, err error) error {
		if snap.unreadable++; snap.unreadable > unreadableMax {
			return err
		}
		unreadable = append(unreadable, fmt.Errorf("activity log block %d: %w", (at-l.RingOffset)/BlockBytes, err))
		return nil
	})
	if err != nil || len(unreadable) > 0 {
		return errors.Join(unreadable...), err
	}
	return snap.restore(txs, bad), nil
}

// loadTransaction reads a block of the ring; one never written has number 0. wrong says
// why it is none, err that it is another's.
func (snap *Snapshot) loadTransaction(place uint64, b []byte) (tx actlog.Transaction, wrong, err error) {
	s := &snap.Super
	device, tx, wrong := decodeActivity(b, s.ActivitySlots)
	switch {
	case wrong != nil:
		return tx, fmt.Errorf("activity log block %d: %w", place, wrong), nil
	case device != s.Device:
		return tx, nil, fmt.Errorf("activity log block %d: %w: device %s, want %s", place, ErrForeign, device, s.Device)
	case tx.Number != 0 && tx.Number%uint64(snap.Layout.RingBlocks) != place:
		return tx, fmt.Errorf("activity log block %d: %w: it holds transaction %d", place, ErrMalformed, tx.Number), nil
	}
	return tx, nil, nil
}

// restore rebuilds the log. Only one block may be damaged, and the rest must
// show that it was the one in flight.
func (snap *Snapshot) restore(txs []actlog.Transaction, bad []error) (lost error) {
	snap.Log = actlog.New(snap.Super.ActivitySlots)
	if len(bad) > 1 {
		return errors.Join(bad...)
	}
	if err := snap.Log.Restore(txs); err != nil {
		return errors.Join(append(bad, err)...)
	}
	if len(bad) == 1 {
		snap.Repairs = append(snap.Repairs, bad[0].Error()+"; it was being written when the node went down")
	}
	snap.Log.Hot(func(e uint32) { snap.HotExtents = append(snap.HotExtents, e) })
	slices.Sort(snap.HotExtents)
	return nil
}

// startOver makes everything out of sync, durably, and the activity log empty.
// FullSync stands in the superblock meanwhile, so that a crash in between makes
// the next Open do it again.
func (snap *Snapshot) startOver(disk block.Disk, lost error) error {
	s, l := &snap.Super, &snap.Layout
	why := "the superblock asks for a full resync"
	if lost != nil {
		why = "the activity log is lost (" + lost.Error() + ")"
	}
	snap.Repairs = append(snap.Repairs, why+"; the whole volume counts as out of sync")
	if err := snap.superWith(disk, s.Flags|FullSync); err != nil {
		return err
	}
	snap.Bitmap.SetAll()
	var payload []byte
	err := writeBlocks(disk, l.BitmapOffset, l.BitmapPages, func(i int, b []byte) error {
		payload = snap.Bitmap.Page(i, payload)
		return encodePage(b, s.Device, i, payload)
	})
	if err != nil {
		return err
	}
	if err := writeRing(disk, s, l); err != nil {
		return err
	}
	if err := flush(disk); err != nil {
		return err
	}
	for i := range snap.Bitmap.Pages() {
		snap.Bitmap.Saved(i, snap.Bitmap.Version(i))
	}
	snap.Log, snap.HotExtents = actlog.New(s.ActivitySlots), nil
	return snap.superWith(disk, s.Flags&^FullSync)
}

// superWith writes the next superblock with other flags.
func (snap *Snapshot) superWith(disk block.Disk, f Flags) error {
	next := snap.Super
	next.Flags = f
	next.Sequence++
	if err := writeSuper(disk, &next, &snap.Layout); err != nil {
		return err
	}
	snap.Super = next
	return nil
}
