package sim

import (
	"encoding/binary"
	"math/rand/v2"

	"hapair/mirror/block"
	"hapair/test/check"
)

// disk is a copy with a volatile cache: contents per sector are the version of
// the write that put them there. Writes reach the cache when they complete; a
// power cut keeps any part of what was not flushed, 4 KiB at a time.
type disk struct {
	stable []check.Version
	cache  map[int]check.Version
	cached []uint64 // which sectors are in it, a bit each: most are asked for and are not
}

func newDisk(sizeBytes int64) *disk {
	return &disk{stable: make([]check.Version, sizeBytes/check.SectorBytes), cache: map[int]check.Version{},
		cached: make([]uint64, sizeBytes/check.SectorBytes/64+1)}
}

// at is the version that a sector holds; what nobody wrote counts as zero.
func (d *disk) at(sector int) check.Version {
	if v := d.raw(sector); !behindAll(v) {
		return v
	}
	return 0
}

func (d *disk) raw(sector int) check.Version {
	if d.cached[sector/64]&(1<<(sector%64)) != 0 {
		return d.cache[sector]
	}
	return d.stable[sector]
}

// apply carries one request out.
func (d *disk) apply(r *block.Request) {
	first, n := int(r.Offset/check.SectorBytes), int(r.Length/check.SectorBytes)
	switch r.Op {
	case block.Read:
		clear(r.Data)
		for i := range n {
			binary.LittleEndian.PutUint64(r.Data[i*check.SectorBytes:], uint64(d.raw(first+i)))
		}
	case block.Write:
		for i := range n {
			d.put(first+i, check.Version(binary.LittleEndian.Uint64(r.Data[i*check.SectorBytes:])), r.Flags)
		}
	case block.WriteZeroes, block.Discard:
		for i := range n {
			d.put(first+i, 0, r.Flags)
		}
	case block.Flush:
		d.flush()
	}
}

func (d *disk) put(sector int, v check.Version, f block.Flags) {
	if f&block.FUA != 0 {
		d.stable[sector] = v
		d.forget(sector)
		return
	}
	d.cache[sector] = v
	d.cached[sector/64] |= 1 << (sector % 64)
}

// forget takes a sector out of the cache.
func (d *disk) forget(sector int) {
	delete(d.cache, sector)
	d.cached[sector/64] &^= 1 << (sector % 64)
}

func (d *disk) flush() {
	for s, v := range d.cache {
		d.stable[s] = v
	}
	clear(d.cache)
	clear(d.cached)
}

// tear applies any part of a request that was at the disk when it died.
func (d *disk) tear(r *block.Request, rng *rand.Rand) {
	if !r.Op.Changes() {
		return
	}
	first, n := int(r.Offset/check.SectorBytes), int(r.Length/check.SectorBytes)
	const perBlock = 8
	keep := false
	for i := range n {
		if i == 0 || (first+i)%perBlock == 0 {
			keep = rng.IntN(2) == 0
		}
		if !keep {
			continue
		}
		v := check.Version(0)
		if r.Op == block.Write {
			v = check.Version(binary.LittleEndian.Uint64(r.Data[i*check.SectorBytes:]))
		}
		d.put(first+i, v, 0)
	}
}

// powerCut loses any part of the cache.
func (d *disk) powerCut(rng *rand.Rand) {
	keep := map[int]bool{}
	for s := 0; len(d.cache) > 0 && s < len(d.stable); s++ {
		v, ok := d.cache[s]
		if !ok {
			continue
		}
		k, seen := keep[s/8]
		if !seen {
			k = rng.IntN(2) == 0
			keep[s/8] = k
		}
		if k {
			d.stable[s] = v
		}
		d.forget(s)
	}
}

// spoil is what a request that failed may leave behind: any part of a write,
// and a flush may lose what it should have kept.
func (d *disk) spoil(r *block.Request, rng *rand.Rand) {
	d.tear(r, rng)
	if r.Op == block.Flush {
		d.powerCut(rng)
	}
}
