package aside

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"hapair/mirror/block"
)

// keeper saves, on a goroutine of its own.
type keeper struct {
	disk   *Disk
	image  *Image
	limits Limits
	lost   atomic.Bool // nothing is saved any more, and the image says so
	left   atomic.Bool // the image is closed, or about to be
	ended  chan struct{}
	broken error // nothing is saved any more, and the image does not say so yet; of run
	told   bool  // of that
	closed error // of the image, when ended

	mu struct {
		sync.Mutex
		wake    sync.Cond
		held    []*block.Request // what waits, in order
		ticks   uint64
		since   uint64 // the tick at which something was saved last, or the first began to wait
		leaving bool
		refuse  error // what has to be saved is answered with it; nil while leaving: it is passed on
		busy    bool  // the goroutine saves
		adrift  bool  // abandoned: nobody waits for a goroutine that is busy
	}
}

// put takes a request that has to wait, or fails; false when the caller passes it on.
func (k *keeper) put(r *block.Request) bool {
	if k.lost.Load() || k.image.covers(r.Offset, max(r.Length, 1)) {
		return false
	}
	k.mu.Lock()
	if err := k.mu.refuse; err != nil {
		k.mu.Unlock()
		r.Answer(fmt.Errorf("%s: %w", r, err))
		return true
	}
	defer k.mu.Unlock()
	if k.mu.leaving {
		return false
	}
	if len(k.mu.held) == 0 {
		k.mu.since = k.mu.ticks
	}
	k.mu.held = append(k.mu.held, r)
	k.mu.wake.Signal()
	return true
}

// leave waits until all that waits is saved, and the image closed. One that was
// abandoned is closed when its file system answers: until then nobody opens it.
func (k *keeper) leave(refuse error) error {
	k.mu.Lock()
	k.mu.leaving = true
	if k.mu.refuse == nil {
		k.mu.refuse = refuse
	}
	k.left.Store(true)
	k.mu.wake.Broadcast()
	for !(k.mu.adrift && k.mu.busy) && !k.over() {
		k.mu.wake.Wait()
	}
	k.mu.Unlock()
	if !k.over() {
		return fmt.Errorf("the image of volume %d: its file system does not answer: %w", k.image.Header.Volume, block.ErrNoAnswer)
	}
	return k.closed
}

func (k *keeper) over() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

func (k *keeper) abandon(why error) {
	k.mu.Lock()
	held := k.mu.held
	k.mu.held, k.mu.refuse, k.mu.adrift = nil, why, true
	k.mu.wake.Broadcast()
	k.mu.Unlock()
	var answers block.Answers
	for _, r := range held {
		answers.Done(r, why)
	}
	answers.Flush()
}

func (k *keeper) run() {
	for {
		k.mu.Lock()
		for len(k.mu.held) == 0 && !k.mu.leaving {
			k.mu.wake.Wait()
		}
		queue := k.mu.held // appended to meanwhile, never changed
		k.mu.busy = len(queue) > 0
		k.mu.Unlock()
		if len(queue) == 0 {
			break
		}
		batch, n := k.gather(queue)
		var err error
		if len(batch) > 0 {
			if err = k.keep(batch); err != nil {
				n = max(n, 1)
			}
		}
		k.letGo(n, err)
	}
	k.closed = k.image.close()
	close(k.ended)
	k.mu.Lock()
	k.mu.wake.Broadcast()
	k.mu.Unlock()
}

// keep saves what some blocks hold, or has the image say that it is incomplete. After
// an error they may not be overwritten.
func (k *keeper) keep(blocks []int64) error {
	if k.lost.Load() {
		return nil
	}
	if k.broken == nil {
		err := k.saveOld(blocks)
		if err == nil || errors.Is(err, block.ErrNoAnswer) || errors.Is(err, block.ErrClosed) {
			return err // the disk is given up, and nothing overwritten there
		}
		k.broken = err // a file whose flush has failed may say later that all is well
	}
	err := k.lose(k.broken)
	if err != nil {
		err = fmt.Errorf("the image is incomplete, and that cannot be written down: %w: %w", k.broken, err)
	}
	if !k.told && k.limits.Lost != nil {
		k.limits.Lost(cmp.Or(err, k.broken))
	}
	k.told = true
	return err
}

// letGo ends the waiting of the first n requests, unless they were abandoned.
func (k *keeper) letGo(n int, err error) {
	k.mu.Lock()
	k.mu.since, k.mu.busy = k.mu.ticks, false
	var free []*block.Request
	if !k.mu.adrift {
		free, k.mu.held = k.mu.held[:n:n], k.mu.held[n:]
	}
	k.mu.Unlock()
	for _, r := range free {
		r.Plugged = false
		if err != nil {
			r.Answer(fmt.Errorf("%s: %w", r, err))
			continue
		}
		k.disk.inner.Submit(r)
	}
}

// gather collects the blocks that are not saved yet, as many as go into one batch, and
// says how many of the requests they are all of. A request that needs more is saved in
// several rounds, of which none but the last lets it go.
func (k *keeper) gather(queue []*block.Request) (blocks []int64, n int) {
	seen := map[int64]bool{}
	for _, r := range queue {
		for b := r.Offset / BlockBytes; b <= k.image.last(r.End()); b++ {
			if k.lost.Load() || seen[b] || k.image.Saved(b) {
				continue
			}
			if len(blocks) == batchMax {
				return blocks, n
			}
			seen[b] = true
			blocks = append(blocks, b)
		}
		n++
	}
	return blocks, n
}
