package aside

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hapair/mirror/block"
)

// ErrIncomplete: something was overwritten that is not in the image.
var ErrIncomplete = errors.New("the image is incomplete")

// putBackAtOnce is how many blocks are written at once.
const putBackAtOnce = 64

// Check reads everything that was saved, and says whether it is what it was.
func (m *Image) Check(ctx context.Context) error {
	if err := m.whole(); err != nil {
		return err
	}
	return m.Each(func(int64, []byte) error { return ctx.Err() })
}

func (m *Image) whole() error {
	if s := m.State(); s.Phase == Incomplete {
		return fmt.Errorf("volume %d: %w: %s", m.Header.Volume, ErrIncomplete, s.Why)
	}
	return nil
}

// PutBack writes everything that was saved onto the disk, and flushes it. It may be
// begun again at any time; nothing else may use the disk meanwhile.
func (d *Disk) PutBack(ctx context.Context) error {
	m := d.Image()
	if m == nil {
		return ErrNone
	}
	if err := m.whole(); err != nil {
		return fmt.Errorf("put back: %w", err)
	}
	var (
		writing sync.WaitGroup
		turns   = make(chan struct{}, putBackAtOnce)
		mu      sync.Mutex
		failed  error
	)
	err := m.Each(func(b int64, data []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		turns <- struct{}{}
		buf := block.GetBuffer(BlockBytes)
		r := &block.Request{Op: block.Write, Offset: b * BlockBytes}
		r.Length = min(BlockBytes, m.Header.SizeBytes-r.Offset)
		r.Data = buf.Bytes(int(r.Length))
		copy(r.Data, data)
		r.Done = func(r *block.Request, err error) {
			r.PutBuffer(buf)
			mu.Lock()
			failed = errors.Join(failed, err)
			mu.Unlock()
			<-turns
			writing.Done()
		}
		mu.Lock()
		defer mu.Unlock()
		if failed != nil {
			<-turns
			buf.Put()
			return failed
		}
		writing.Add(1)
		go d.inner.Submit(r) // Done may run at once, and takes the lock
		return nil
	})
	writing.Wait()
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("put volume %d back: %w", m.Header.Volume, err)
	}
	flushed := make(chan error, 1)
	d.inner.Submit(&block.Request{Op: block.Flush, Done: func(_ *block.Request, err error) { flushed <- err }})
	if err := <-flushed; err != nil {
		return fmt.Errorf("put volume %d back: flush: %w", m.Header.Volume, err)
	}
	return nil
}
