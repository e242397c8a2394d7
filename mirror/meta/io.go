package meta

import (
	"errors"
	"fmt"

	"hapair/mirror/block"
)

// do carries out one request and waits for it.
func do(disk block.Disk, r *block.Request) error {
	done := make(chan error, 1)
	r.Done = func(_ *block.Request, err error) { done <- err }
	disk.Submit(r)
	return <-done
}

// batchBytes is how much is read or written at once at Create and Open.
const batchBytes = 1 << 20

// readRange reads [offset, offset+length) in batches and hands each to fn. Both
// are multiples of BlockBytes.
func readRange(disk block.Disk, offset, length int64, fn func(at int64, data []byte) error) error {
	buf := block.GetBuffer(batchBytes)
	var r block.Request
	defer func() { r.PutBuffer(buf) }()
	step := int64(min(batchBytes, disk.Geometry().MaxTransferBytes))
	for length > 0 {
		n := min(step, length)
		r = block.Request{Op: block.Read, Offset: offset, Length: n, Data: buf.Bytes(int(n))}
		if err := do(disk, &r); err != nil {
			return fmt.Errorf("read metadata: %w", err)
		}
		if err := fn(offset, r.Data); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// readEach is readRange where single blocks may be unreadable: a batch that fails with
// block.ErrIO is read again block by block, and those that fail alone are handed to
// lost, whose error ends it.
func readEach(disk block.Disk, offset, length int64, fn func(at int64, data []byte) error, lost func(at int64, err error) error) error {
	step := int64(min(batchBytes, disk.Geometry().MaxTransferBytes)) / BlockBytes * BlockBytes
	for ; length > 0; offset, length = offset+step, length-step {
		n := min(step, length)
		err := readRange(disk, offset, n, fn)
		for at := offset; errors.Is(err, block.ErrIO) && at < offset+n; at += BlockBytes {
			one := readRange(disk, at, BlockBytes, fn)
			if errors.Is(one, block.ErrIO) {
				one = lost(at, one)
			}
			if one != nil {
				return one
			}
		}
		if err != nil && !errors.Is(err, block.ErrIO) {
			return err
		}
	}
	return nil
}

// readBlock reads one block.
func readBlock(disk block.Disk, offset int64) ([]byte, error) {
	out := make([]byte, BlockBytes)
	err := readRange(disk, offset, BlockBytes, func(_ int64, data []byte) error {
		copy(out, data)
		return nil
	})
	return out, err
}

// writeBlocks writes count blocks from offset, which fill makes one after the
// other, and does not flush.
func writeBlocks(disk block.Disk, offset int64, count int, fill func(i int, b []byte) error) error {
	buf := block.GetBuffer(batchBytes)
	var r block.Request
	defer func() { r.PutBuffer(buf) }()
	step := min(batchBytes, disk.Geometry().MaxTransferBytes) / BlockBytes
	for i := 0; i < count; {
		n := min(step, count-i)
		for j := range n {
			if err := fill(i+j, buf.Bytes(batchBytes)[j*BlockBytes:(j+1)*BlockBytes]); err != nil {
				return err
			}
		}
		r = block.Request{
			Op: block.Write, Offset: offset + int64(i)*BlockBytes,
			Length: int64(n) * BlockBytes, Data: buf.Bytes(n * BlockBytes),
		}
		if err := do(disk, &r); err != nil {
			return fmt.Errorf("write metadata: %w", err)
		}
		i += n
	}
	return nil
}

func flush(disk block.Disk) error {
	if err := do(disk, &block.Request{Op: block.Flush}); err != nil {
		return fmt.Errorf("flush metadata: %w", err)
	}
	return nil
}

// checkDevice judges whether metadata can live on a device.
func checkDevice(disk block.Disk) (sizeBytes int64, err error) {
	g := disk.Geometry()
	if g.LogicalBlockBytes > BlockBytes || g.MaxTransferBytes < BlockBytes {
		return 0, fmt.Errorf("device with blocks of %d bytes and transfers of at most %d cannot hold metadata, which has blocks of %d",
			g.LogicalBlockBytes, g.MaxTransferBytes, BlockBytes)
	}
	size := g.SizeBytes / BlockBytes * BlockBytes
	if size < superBlocks*BlockBytes {
		return 0, fmt.Errorf("%w: it has %d bytes", ErrTooSmall, g.SizeBytes)
	}
	return size, nil
}
