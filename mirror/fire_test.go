package mirror

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"hapair/mirror/block"
)

// writer owns a part of the volume: it writes, reads back what it wrote, and
// flushes, one request at a time.
type writer struct {
	rng    *rand.Rand
	from   int64
	blocks int64
	want   map[int64]uint64 // block to the seed of its contents; absent: zeroes
}

func (w *writer) step(t *testing.T, d *door) error {
	at := w.rng.Int64N(w.blocks)
	r := &block.Request{Offset: w.from + at*4096, Length: 4096}
	switch k := w.rng.IntN(10); {
	case k == 0:
		r.Op, r.Offset, r.Length = block.Flush, 0, 0
	case k < 4:
		r.Op, r.Data = block.Read, block.Aligned(4096)
	case k == 4:
		r.Op = block.WriteZeroes
		delete(w.want, at)
	default:
		seed := w.rng.Uint64()
		r.Op, r.Data = block.Write, fill(seed, 4096)
		w.want[at] = seed
	}
	if err := d.do(t, r); err != nil || r.Op != block.Read {
		return err
	}
	expected := make([]byte, 4096)
	if seed, ok := w.want[at]; ok {
		expected = fill(seed, 4096)
	}
	if !bytes.Equal(r.Data, expected) {
		return errors.New(r.String() + " returns something else than was written")
	}
	return nil
}

// TestManyWritersWhileTheCableFlaps: eight applications on real goroutines,
// and a link that is dropped again and again under them.
func TestManyWritersWhileTheCableFlaps(t *testing.T) {
	p := newPair(t)
	a := p.nodes[0]
	p.established()
	p.promote(0)
	const writers, steps, share = 8, 250, pairSize / 8
	var running sync.WaitGroup
	for i := range writers {
		w := &writer{rng: rand.New(rand.NewPCG(uint64(i), 7)), from: int64(i) * share, blocks: share / 4096, want: map[int64]uint64{}}
		running.Go(func() {
			for n := range steps {
				if n%50 == 25 && w.from == 0 {
					a.DropSession(errors.New("the cable flaps"))
				}
				if err := w.step(t, a.door); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	a.await(t, "in sync again", func(v View) bool { return established(v) && slices.Contains(v.Record.InSync, "beta") })
	must(t, a.door.do(t, &block.Request{Op: block.Flush}))
	p.equal()
}
