package bubble

import (
	"encoding/binary"
	"fmt"
	"sync"

	"hapair/test/check"
)

// Regions of the volume: each application worker owns one. They lie apart, so
// that they fall into several extents. The book counts sectors without the gaps.
const (
	regions      = 6
	regionBytes  = 64 << 10
	regionStride = 5 << 19 // 2.5 MiB
	volumeBytes  = 16 << 20
	sector       = check.SectorBytes
)

// onVolume is where an offset of the book lies on the volume. A range within a
// region stays in one piece.
func onVolume(off int64) int64 { return off/regionBytes*regionStride + off%regionBytes }

// stray marks the version of a write that was submitted on a node after
// another one had answered under a higher tenure: it must never be found.
const stray check.Version = 1 << 63

// book is what the applications were told, and the judge of what they find.
type book struct {
	fail func(format string, args ...any)

	mu      sync.Mutex
	history *check.History
	found   []check.Version // by the last answered read
	settled []bool          // nothing was submitted since that read, under the same tenure
	lossy   []bool          // a double failure may have taken what was not flushed
	tenure  uint64          // the highest that has answered
	strays  check.Version
	// counted for the report
	writes, reads, flushes, failed, tenures int
}

func newBook(fail func(string, ...any)) *book {
	n := regions * regionBytes / sector
	return &book{fail: fail, history: check.NewHistory(regions * regionBytes),
		found: make([]check.Version, n), settled: make([]bool, n), lossy: make([]bool, n)}
}

// submit gives a write its version.
func (k *book) submit(tenure uint64, off, length int64, zero bool) check.Version {
	k.mu.Lock()
	defer k.mu.Unlock()
	if tenure < k.tenure {
		k.strays++
		return stray | k.strays
	}
	for i := off / sector; i < (off+length)/sector; i++ {
		k.settled[i] = false
	}
	return k.history.Submit(off, length, zero)
}

// answered judges that a node answered anything under a tenure.
func (k *book) answered(node string, tenure uint64, what string) {
	if tenure < k.tenure {
		k.fail("pen law: %s answered a %s under tenure %d after tenure %d had answered", node, what, tenure, k.tenure)
	}
	if tenure > k.tenure {
		// What a read showed of writes that were never answered is asked within a
		// tenure here; across tenures the histories of test/netns ask for it.
		clear(k.settled)
		k.tenure = tenure
		k.tenures++
	}
}

func (k *book) wrote(node string, tenure uint64, v check.Version) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answered(node, tenure, "write")
	k.writes++
	if v&stray != 0 {
		k.fail("pen law: %s answered a write submitted under tenure %d after tenure %d had answered", node, tenure, k.tenure)
		return
	}
	k.history.Acked(v)
}

// snapshot is what a flush that is submitted now has to cover.
func (k *book) snapshot() []check.Version {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept(k.history.Snapshot())
}

// kept takes out of a snapshot what may be lost: no flush brings it back.
func (k *book) kept(before []check.Version) []check.Version {
	touched := k.history.Touched()
	for n := range before {
		if k.lossy[touched[n]] {
			before[n] = 0
		}
	}
	return before
}

func (k *book) flushed(node string, tenure uint64, before []check.Version) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answered(node, tenure, "flush")
	k.flushes++
	k.history.Flushed(k.kept(before))
}

// durable checks that a platter holds what a flush that was answered covers.
func (k *book) durable(node string, before []check.Version, at func(i int) check.Version) {
	k.mu.Lock()
	defer k.mu.Unlock()
	touched := k.history.Touched()
	for n, v := range before {
		i := touched[n]
		if got := at(i); got != 0 && got < v { // a zero may be a later zeroing
			k.fail("flush law: sector %d: a flush answered by %s covers version %d, its platter has %d", i, node, v, got)
			return
		}
	}
}

// read judges what an answered read found.
func (k *book) read(node string, tenure uint64, off int64, data []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answered(node, tenure, "read")
	k.reads++
	for at := 0; at < len(data); at += sector {
		i := int(off+int64(at)) / sector
		v, err := decode(i, data[at:at+sector])
		if err == nil {
			err = k.judge(i, v)
		}
		if err != nil {
			k.fail("%s, tenure %d: %v", node, tenure, err)
			return
		}
		k.found[i], k.settled[i] = v, true
	}
}

func (k *book) judge(i int, v check.Version) error {
	if v&stray != 0 {
		return fmt.Errorf("fence law: sector %d holds the stray write %d, submitted after a higher tenure had answered", i, v&^stray)
	}
	if k.lossy[i] {
		k.lossy[i] = false
		return k.history.Rebase(i, v)
	}
	if k.settled[i] && k.found[i] != v {
		return fmt.Errorf("sector %d was read as version %d and is %d now, and nothing was submitted since", i, k.found[i], v)
	}
	return k.history.Check(i, v)
}

// lost notes a double failure: what was not flushed may be gone.
func (k *book) lost() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.lossy {
		k.lossy[i] = true
	}
}

// String says how much was answered.
func (k *book) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Sprintf("%d writes, %d reads, %d flushes answered, %d failed, %d tenures served", k.writes, k.reads, k.flushes, k.failed, k.tenures)
}

// served is how many tenures have answered anything.
func (k *book) served() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.tenures
}

func (k *book) failure() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failed++
}

// encode fills sectors with a version that says where it belongs.
func encode(off int64, data []byte, v check.Version) {
	for at := 0; at < len(data); at += sector {
		s := data[at : at+sector]
		i := uint64(off)/sector + uint64(at)/sector
		for w := 0; w < sector; w += 16 {
			binary.LittleEndian.PutUint64(s[w:], uint64(v))
			binary.LittleEndian.PutUint64(s[w+8:], ^i)
		}
	}
}

func decode(i int, s []byte) (check.Version, error) {
	v := binary.LittleEndian.Uint64(s)
	place := ^uint64(i)
	if v == 0 {
		place = 0
	}
	for w := 0; w < sector; w += 16 {
		if binary.LittleEndian.Uint64(s[w:]) != v || binary.LittleEndian.Uint64(s[w+8:]) != place {
			return 0, fmt.Errorf("sector %d is torn or misplaced: % x", i, s[:32])
		}
	}
	return check.Version(v), nil
}
