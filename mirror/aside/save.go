package aside

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
)

// Limits bound an image.
type Limits struct {
	// Bytes is what the image of one volume may take; 0: what is free.
	Bytes int64
	// Free is what stays free on the file system of the images.
	Free int64
	// Lost is told when an image becomes incomplete.
	Lost func(error)
}

// ErrNoRoom: an image would take more than it may.
var ErrNoRoom = errors.New("no room for the image")

// Room is how many bytes more an image in dir, or below the nearest directory that
// is there, may take.
func (l *Limits) Room(dir string, taken int64) (int64, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(dir, &fs)
	for err == unix.ENOENT && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		err = unix.Statfs(dir, &fs)
	}
	if err != nil {
		return 0, fmt.Errorf("room for an image in %s: %w", dir, err)
	}
	room := int64(fs.Bavail)*fs.Bsize - l.Free
	if l.Bytes > 0 {
		room = min(room, l.Bytes-taken)
	}
	return max(room, 0), nil
}

// saveOld reads blocks from the disk and saves them.
func (k *keeper) saveOld(blocks []int64) error {
	room, err := k.limits.Room(filepath.Dir(k.image.data.Name()), k.image.Used())
	if err != nil {
		return err
	}
	if need := int64(len(blocks)+1) * BlockBytes; need > room {
		return fmt.Errorf("%w: %d bytes more, %d may be taken", ErrNoRoom, need, room)
	}
	slices.Sort(blocks)
	pieces, release, err := readBlocks(k.disk.inner, k.image.Header.SizeBytes, blocks)
	defer release()
	if err != nil {
		return err
	}
	return k.image.save(pieces)
}

// lose gives the image up, durably, before anything is overwritten that is not in it.
// An index that cannot be marked is removed: an image without is none. After an error
// neither could be done.
func (k *keeper) lose(why error) error {
	err := k.image.SetState(State{Phase: Incomplete, Why: why.Error()})
	if err != nil {
		dir := filepath.Dir(k.image.index.Name())
		gone := Remove(dir, k.image.Header.Volume)
		if gone != nil {
			return errors.Join(err, gone)
		}
	}
	k.lost.Store(true)
	return nil
}

// readBlocks reads blocks, sorted, from a disk of so many bytes, run by run. What is
// past its end is zero. release gives the memory back.
func readBlocks(d block.Disk, size int64, blocks []int64) (pieces []piece, release func(), err error) {
	var (
		reads   []*block.Request
		buffers []*block.Buffer
		waiting sync.WaitGroup
		mu      sync.Mutex
	)
	for i := 0; i < len(blocks); {
		n := 1
		for i+n < len(blocks) && blocks[i+n] == blocks[i]+int64(n) && (n+1)*BlockBytes <= block.MaxTransferBytes {
			n++
		}
		buf := block.GetBuffer(n * BlockBytes)
		data := buf.Bytes(n * BlockBytes)
		off := blocks[i] * BlockBytes
		length := min(int64(len(data)), size-off)
		clear(data[length:])
		r := &block.Request{Op: block.Read, Offset: off, Length: length, Data: data[:length]}
		r.Done = func(r *block.Request, e error) {
			if e != nil {
				mu.Lock()
				err = errors.Join(err, e)
				mu.Unlock()
			}
			waiting.Done()
		}
		reads, buffers, pieces = append(reads, r), append(buffers, buf), append(pieces, piece{blocks[i], data})
		i += n
	}
	waiting.Add(len(reads))
	for _, r := range reads {
		d.Submit(r)
	}
	waiting.Wait()
	return pieces, func() {
		for i, r := range reads {
			r.PutBuffer(buffers[i])
		}
	}, err
}
