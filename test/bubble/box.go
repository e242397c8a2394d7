package bubble

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/meta"
	"hapair/test/check"
)

const (
	diskFile = "disk"
	metaFile = "metadata"
)

// box is the machine of a node: what outlives its agent.
type box struct {
	name   string
	dir    string
	clock  *clock
	drives map[string]*drive // by the base name of their file; none on the witness
	cuts   int               // of its power; guarded by World.mu

	// After a crash, until both copies are in sync again. Guarded by World.mu.
	fragile    bool
	fragileCut bool // its power was cut
	excludes   bool // it has asked for an exclusion since
	// When the node last was crashed or stood still; zero once it was stopped
	// in order. Guarded by World.mu.
	trouble time.Time
}

func newBox(dir, name string, seed int64, rate float64) (*box, error) {
	x := &box{name: name, dir: filepath.Join(dir, name), clock: newClock(rate), drives: map[string]*drive{}}
	if err := os.MkdirAll(filepath.Join(x.dir, "ledger"), 0o700); err != nil {
		return nil, err
	}
	if name == witness {
		return x, nil
	}
	for file, size := range map[string]int64{diskFile: volumeBytes, metaFile: meta.Needed(volumeBytes)} {
		x.drives[file] = newDrive(size, uint64(seed)+uint64(len(file)))
		if err := os.WriteFile(x.file(file), make([]byte, 4096), 0o600); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func (x *box) file(name string) string { return filepath.Join(x.dir, name) }

func (x *box) drive(path string) *drive { return x.drives[strings.TrimPrefix(path, x.dir+"/")] }

func (x *box) powerCut() {
	for _, d := range x.drives {
		d.cache.Drop()
	}
}

func (x *box) close() {
	for _, d := range x.drives {
		_ = d.cache.Close() // a platter closes without error
	}
}

// clock is a node's own: it runs at its own rate and, while the process stands
// still, shows (almost) no progress, as the process would not see any.
type clock struct {
	rate  float64
	start time.Time

	mu     sync.Mutex
	frozen bool
	last   time.Duration
}

func newClock(rate float64) *clock { return &clock{rate: rate, start: time.Now()} }

// creep is what a standing clock advances with each look, so that nobody who
// waits for an instant close by waits in a circle.
const creep = 200 * time.Nanosecond

func (c *clock) now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := time.Hour + time.Duration(float64(time.Since(c.start))*c.rate)
	if c.frozen {
		t = min(t, c.last+creep)
	}
	c.last = max(c.last, t)
	return c.last
}

func (c *clock) freeze(on bool) {
	c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = on
}

// powerFlush makes what is in the caches durable.
func (x *box) powerFlush() (err error) {
	for _, d := range x.drives {
		done := make(chan error, 1)
		d.cache.Submit(&block.Request{Op: block.Flush, Done: func(_ *block.Request, err error) { done <- err }})
		err = errors.Join(err, <-done)
	}
	return err
}

// onPlatter is the version in a sector of the book that no power cut takes.
func (x *box) onPlatter(i int) check.Version {
	p := x.drives[diskFile].platter
	p.mu.Lock()
	defer p.mu.Unlock()
	return check.Version(binary.LittleEndian.Uint64(p.data[onVolume(int64(i)*sector):]))
}
