package recorder

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"hapair/agent/recorder/story"
	"hapair/kernel/durable"
)

// Bounds of the files, for each node whose record is kept: 4 MiB.
const (
	fileBytes  = 1 << 20
	filesBytes = 4 * fileBytes
	// queuedEntries may wait for the disk. What comes then is not written.
	queuedEntries = 2048
	// batchEntries are written at once.
	batchEntries = 256
	// syncAfter is how long an entry may be only in the page cache. Killing the
	// agent does not lose it, and who cuts the power leaves the other nodes.
	syncAfter = time.Second
	// retryAfter is how long a disk that failed is left alone.
	retryAfter = 5 * time.Second
	// lengthMin is what a file counts at least, so that their number is bounded.
	lengthMin = 4096
)

// disk writes entries to files: <dir>/<node>/<number>.rec. run owns all but in,
// loaded, done, dropped and trouble.
type disk struct {
	r       *Recorder
	in      chan *story.Entry
	loaded  chan struct{} // closed when the files of earlier lives have been read
	done    chan struct{} // closed when run has ended
	dropped atomic.Uint64 // entries that are not on this disk
	told    uint64        // of them
	series  map[string]*series

	mu      sync.Mutex
	trouble error // what ails it
}

// series are the files of one node's record.
type series struct {
	dir   string
	file  *os.File // nil: none is open
	size  int
	next  int  // number of the next file
	dirty bool // since the last sync
}

func newDisk(r *Recorder) *disk {
	d := &disk{r: r, in: make(chan *story.Entry, queuedEntries), loaded: make(chan struct{}), done: make(chan struct{}), series: map[string]*series{}}
	for _, node := range append([]string{r.cfg.Self}, r.cfg.Others...) {
		d.series[node] = &series{dir: filepath.Join(r.cfg.Dir, node), next: 1}
	}
	return d
}

// put never waits.
func (d *disk) put(e *story.Entry) {
	select {
	case d.in <- e:
	default:
		d.dropped.Add(1)
	}
}

// run reads what is there, then writes what comes, until in is closed.
func (d *disk) run() {
	defer close(d.done)
	d.note(d.load())
	close(d.loaded)
	sync := time.NewTimer(syncAfter)
	defer sync.Stop()
	var resting time.Time // until when nothing is written
	for {
		select {
		case e, open := <-d.in:
			if !open {
				d.note(d.close())
				return
			}
			batch := d.drain(e)
			if time.Now().Before(resting) {
				d.dropped.Add(uint64(len(batch)))
				continue
			}
			if err := d.write(batch); err != nil {
				d.dropped.Add(uint64(len(batch)))
				resting = time.Now().Add(retryAfter)
				d.note(err)
				continue
			}
			d.note(nil)
		case <-sync.C:
			if err := d.sync(); err != nil { // that it works is known from a write
				d.note(err)
			}
			sync.Reset(syncAfter)
		}
	}
}

// drain takes what else waits.
func (d *disk) drain(e *story.Entry) []*story.Entry {
	batch := []*story.Entry{e}
	for len(batch) < batchEntries {
		select {
		case e, open := <-d.in:
			if !open {
				return batch
			}
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

// note remembers what ails the disk, and tells when that changes. That some
// entries are missing on it is told once it works.
func (d *disk) note(err error) {
	d.mu.Lock()
	was := d.trouble
	d.trouble = err
	d.mu.Unlock()
	text := ""
	switch n := d.dropped.Load(); {
	case err != nil && was == nil:
		text = "the flight recorder's disk fails: " + err.Error()
	case err == nil && n > d.told:
		text = fmt.Sprintf("%d entries of the flight recorder were not written to its disk on %s; the other nodes keep what they heard of them", n-d.told, d.r.cfg.Self)
		d.told = n
	}
	if text == "" {
		return
	}
	d.r.log.Warn(text, zap.Error(err))
	if d.r.cfg.Trouble != nil {
		d.r.cfg.Trouble(text)
	}
}

func (d *disk) write(batch []*story.Entry) error {
	parts := map[string][]byte{}
	for _, e := range batch {
		b, err := story.Append(parts[e.Node], e)
		if err != nil {
			return err
		}
		parts[e.Node] = b
	}
	var errs []error
	for node, b := range parts {
		if err := d.of(node).write(b); err != nil {
			errs = append(errs, fmt.Errorf("record of %s: %w", node, err))
		}
	}
	return errors.Join(errs...)
}

// of are the files of a node. One that came later may have been here in an earlier
// life: what it left is read first.
func (d *disk) of(node string) *series {
	s := d.series[node]
	if s == nil {
		s = &series{dir: filepath.Join(d.r.cfg.Dir, node), next: 1}
		d.series[node] = s
		d.note(d.loadOf(node, s))
	}
	return s
}

func (d *disk) sync() error {
	var errs []error
	for _, s := range d.series {
		errs = append(errs, s.sync())
	}
	return errors.Join(errs...)
}

func (d *disk) close() error {
	var errs []error
	for _, s := range d.series {
		errs = append(errs, s.sync(), s.end())
	}
	return errors.Join(errs...)
}

// write appends whole frames. After an error the file is left as it is: what it
// ends with may be torn.
func (s *series) write(b []byte) error {
	if s.file != nil && s.size+len(b) > fileBytes {
		if err := errors.Join(s.sync(), s.end()); err != nil {
			return err
		}
	}
	if s.file == nil {
		if err := s.begin(); err != nil {
			return err
		}
	}
	n, err := s.file.Write(b)
	s.size += n
	s.dirty = true
	if err != nil {
		return errors.Join(err, s.end())
	}
	return nil
}

// begin opens the next file, and takes the oldest away.
func (s *series) begin() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.trim(filesBytes - fileBytes); err != nil {
		return err
	}
	f, err := os.OpenFile(s.name(s.next), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	s.file, s.next = f, s.next+1
	s.size, err = f.Write(story.Header())
	if err == nil {
		err = durable.SyncDir(s.dir) // its entries are synced later, and its name is not with them
	}
	if err != nil {
		return errors.Join(err, s.end())
	}
	return nil
}

func (s *series) name(number int) string {
	return filepath.Join(s.dir, fmt.Sprintf("%08d.rec", number))
}

func (s *series) sync() error {
	if s.file == nil || !s.dirty {
		return nil
	}
	s.dirty = false
	if err := s.file.Sync(); err != nil {
		return errors.Join(err, s.end())
	}
	return nil
}

func (s *series) end() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

// found is a file of a series.
type found struct {
	number int
	size   int64
}

// files lists them, the oldest first.
func (s *series) files() ([]found, error) {
	names, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []found
	for _, n := range names {
		var f found
		if _, err := fmt.Sscanf(n.Name(), "%d.rec", &f.number); err != nil || n.Name() != filepath.Base(s.name(f.number)) {
			continue // nothing of ours
		}
		info, err := n.Info()
		if err != nil {
			return nil, err
		}
		f.size = max(info.Size(), lengthMin)
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b found) int { return cmp.Compare(a.number, b.number) })
	return out, nil
}

// trim removes the oldest files until the rest is within a size.
func (s *series) trim(most int64) error {
	files, err := s.files()
	if err != nil {
		return err
	}
	total := int64(0)
	for _, f := range files {
		total += f.size
	}
	for ; len(files) > 0 && total > most; files = files[1:] {
		total -= files[0].size
		if err := os.Remove(s.name(files[0].number)); err != nil {
			return err
		}
	}
	return nil
}

// load reads all files of earlier lives, and goes on in the last one where that
// ends well.
func (d *disk) load() error {
	var errs []error
	for node, s := range d.series {
		errs = append(errs, d.loadOf(node, s))
	}
	return errors.Join(errs...)
}

func (d *disk) loadOf(node string, s *series) error {
	entries, err := s.load()
	if err != nil {
		err = fmt.Errorf("record of %s: %w", node, err)
	}
	mine := entries[:0]
	for _, e := range entries {
		if e.Node == node {
			mine = append(mine, e)
		}
	}
	d.r.restore(mine)
	return err
}

func (s *series) load() (all []story.Entry, err error) {
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	var errs []error
	for i, f := range files {
		s.next = f.number + 1
		b, err := os.ReadFile(s.name(f.number))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		entries, whole, err := story.Read(b)
		all = append(all, entries...)
		if err == nil && i == len(files)-1 && whole < fileBytes {
			err = s.goOn(f.number, whole)
		}
		if err != nil && !errors.Is(err, story.ErrTorn) { // torn is what a crash leaves
			errs = append(errs, fmt.Errorf("%s: %w", s.name(f.number), err))
		}
	}
	return all, errors.Join(errs...)
}

// goOn appends to a file that was read.
func (s *series) goOn(number, size int) (err error) {
	s.file, err = os.OpenFile(s.name(number), os.O_WRONLY|os.O_APPEND, 0o600)
	s.size = size
	return err
}
