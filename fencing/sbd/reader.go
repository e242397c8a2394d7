package sbd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"go.uber.org/zap"
)

// ErrPill is wrapped where a node has found a pill for its present life.
var ErrPill = errors.New("a pill")

// ErrAnew is wrapped where a disk was made anew under a reader.
var ErrAnew = errors.New("it was made anew: stop this node's agent and start it again")

// Never is the instant at which nobody was heard.
const Never = time.Duration(math.MinInt64 / 2)

const (
	readEvery = time.Second // at most; a quarter of what a read is good for, if that is less
	lastTries = time.Second // between two tries to write that the watchdog is not armed
)

// ReaderConfig is what a Reader goes by.
type ReaderConfig struct {
	Open    func() (Disk, error)
	Owner   Owner
	Self    string
	Life    ID // of this boot
	Machine ID // zero: not known
	// Former says that this life has armed the watchdog before, and not disarmed it.
	Former bool
	Clock  func() time.Duration // counts suspended time
	Log    *zap.Logger
	// Heard returns the latest instant at which it was certain that no fence of this
	// node, if one was asked for before, would count; Never. It waits for nothing.
	Heard func() time.Duration
	// Doom is told of a pill for this life, once. What it does not end the watchdog
	// does.
	Doom func(why string)
	Tell func(text string, problem bool) // nil: nobody is told
}

// Reader reads what this node is told, and says that it does.
type Reader struct {
	cfg   ReaderConfig
	valid time.Duration
	end   context.CancelFunc
	done  chan struct{}
	disk  ID     // not changed after Find
	word  string // likewise after Start
	said  Slot   // what is on the disk; of the goroutine that has the area
	area  *area

	mu      sync.Mutex
	readAt  time.Duration // when the last good read began, on the clock
	trouble error         // of the last one
	hangs   bool          // it has been told that the disk does not answer
	doomed  bool
}

// Find opens the disk and looks what this node is told there, before anything is
// armed: a pill is an error. What was meant for an earlier life is taken away. timeout is
// what the watchdog is to be armed with; of a life that has armed it before the returned
// one counts, as others rely on that.
func Find(cfg ReaderConfig, timeout time.Duration) (*Reader, time.Duration, error) {
	d, err := cfg.Open()
	if err != nil {
		return nil, timeout, err
	}
	r := &Reader{cfg: cfg, done: make(chan struct{})}
	if timeout, err = r.find(d, timeout); err != nil {
		return nil, timeout, errors.Join(err, d.Close())
	}
	return r, timeout, nil
}

func (r *Reader) find(d Disk, timeout time.Duration) (time.Duration, error) {
	a, err := take(d, r.cfg.Owner)
	if err != nil {
		return timeout, err
	}
	r.area, r.disk = a, a.head.Disk
	old, err := a.slot(r.cfg.Self)
	same := err == nil && old.Life == r.cfg.Life
	switch {
	case errors.Is(err, ErrDamaged): // this node lost its power as it wrote
		same = r.cfg.Former
		old.Seq = uint64(time.Now().Unix()) // more than any it may have had
	case err != nil:
		return timeout, err
	}
	r.said = old
	r.readAt = r.cfg.Clock()
	m, err := a.mail(r.cfg.Self)
	switch {
	case err == nil && m.Pill && m.To == r.cfg.Life:
		return timeout, pill(m)
	case same && err != nil:
		return timeout, err
	case same && old.Armed:
		return old.Timeout, nil
	case err != nil && !errors.Is(err, ErrDamaged):
		return timeout, err
	case err != nil || m.Pill: // nobody can have meant this life: it has not been told of yet
		return timeout, a.putMail(r.cfg.Self, Mail{Seq: m.Seq + 1, At: time.Now()})
	}
	return timeout, nil
}

func pill(m Mail) error {
	return fmt.Errorf("%w from %s, of %s: %s", ErrPill, m.From, m.At.Format(time.RFC3339), m.Why)
}

// ValidFor is how long a read is good for, with a watchdog of that time-out.
func ValidFor(timeout time.Duration) time.Duration { return timeout / 2 }

// Start says that the watchdog is armed, with that time-out, and begins to read.
// From then on the watchdog is petted only while Why says nothing.
func (r *Reader) Start(timeout time.Duration) error {
	r.valid = ValidFor(timeout)
	s := Slot{Node: r.cfg.Self, Armed: true, Life: r.cfg.Life, Machine: r.cfg.Machine, Timeout: timeout, Valid: r.valid}
	if err := r.say(s); err != nil {
		return errors.Join(err, r.area.disk.Close())
	}
	r.word = r.said.Word()
	ctx, end := context.WithCancel(context.Background())
	r.end = end
	go r.run(ctx)
	go r.watch()
	return nil
}

// Word is what to tell the other node, once it has started.
func (r *Reader) Word() string { return r.word }

// say writes what others may rely on.
func (r *Reader) say(s Slot) error {
	s.Disk, s.Seq, s.At = r.area.head.Disk, r.said.Seq+1, time.Now()
	if err := r.area.putSlot(s); err != nil {
		return err
	}
	r.said = s
	return nil
}

// Disk names the disk that it reads, or read first.
func (r *Reader) Disk() ID { return r.disk }

func (r *Reader) run(ctx context.Context) {
	defer close(r.done)
	t := time.NewTicker(min(r.valid/4, readEvery))
	defer t.Stop()
	for {
		if errors.Is(r.read(), ErrPill) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// read looks once what this node is told.
func (r *Reader) read() error {
	began := r.cfg.Clock()
	m, err := r.mail()
	if err == nil && m.Pill && m.To == r.cfg.Life {
		err = pill(m)
	}
	r.mu.Lock()
	was := r.trouble != nil || r.hangs
	r.trouble, r.hangs = err, false
	if err == nil {
		r.readAt = began
	}
	doom := errors.Is(err, ErrPill)
	r.doomed = r.doomed || doom
	r.mu.Unlock()
	switch {
	case doom:
		r.tell("this node is told to go down, by "+err.Error(), true)
		r.cfg.Doom(err.Error())
	case err != nil && !was:
		r.tell("the sbd disk cannot be read: "+err.Error(), true)
	case err == nil && was:
		r.tell("the sbd disk can be read again", false)
	}
	return err
}

// watch tells of a read that does not return.
func (r *Reader) watch() {
	t := time.NewTicker(r.valid / 4)
	defer t.Stop()
	for {
		select {
		case <-r.done:
			return
		case <-t.C:
		}
		r.mu.Lock()
		err := r.late()
		first := err != nil && !r.hangs
		r.hangs = err != nil
		r.mu.Unlock()
		if first {
			r.tell("the sbd disk cannot be read: "+err.Error(), true)
		}
	}
}

// late says that the last read hangs, nil if it has ended. mu is held.
func (r *Reader) late() error {
	if still := r.cfg.Clock() - r.readAt; r.trouble == nil && still > r.valid {
		return fmt.Errorf("it has not answered for %s", still.Round(time.Second))
	}
	return nil
}

// mail reads, by a descriptor of its own after a failure: a disk that came back may
// be another device.
func (r *Reader) mail() (Mail, error) {
	if r.area.disk != nil {
		m, err := r.area.mail(r.cfg.Self)
		if err == nil {
			return m, nil
		}
		cerr := r.area.disk.Close()
		r.area.disk = nil
		return m, errors.Join(err, cerr)
	}
	d, err := r.cfg.Open()
	if err != nil {
		return Mail{}, err
	}
	a, err := take(d, r.cfg.Owner)
	if err == nil && a.head.Disk != r.area.head.Disk {
		err = ErrAnew
	}
	var m Mail
	if err == nil {
		m, err = a.mail(r.cfg.Self)
	}
	if err != nil {
		return m, errors.Join(err, d.Close())
	}
	r.area = a
	return m, nil
}

func (r *Reader) tell(text string, problem bool) {
	if problem {
		r.cfg.Log.Error(text)
	} else {
		r.cfg.Log.Warn(text)
	}
	if r.cfg.Tell != nil {
		r.cfg.Tell(text, problem)
	}
}

// Why says why the watchdog must not be petted, "" if it may: it was read lately that
// there is no pill, or no fence that was asked for before would count. Whoever wrote a
// pill, and saw it on the disk, knows by that how long this goes on at most.
func (r *Reader) Why(now time.Duration) string {
	r.mu.Lock()
	read, err, doomed := r.readAt, r.trouble, r.doomed
	r.mu.Unlock()
	switch {
	case doomed:
		return err.Error()
	case now-read <= r.valid, now-r.cfg.Heard() <= r.valid:
		return ""
	}
	if err == nil {
		err = errors.New("it does not answer")
	}
	return fmt.Sprintf("the disk was not read for %s (%v), nor is the other node heard", (now - read).Round(time.Millisecond), err)
}

// Trouble is why the disk cannot be read, nil while it can.
func (r *Reader) Trouble() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trouble != nil {
		return r.trouble
	}
	return r.late()
}

// Stop says that the watchdog is not armed any more, before it is disarmed, and looks
// for a pill a last time. When it returns nil the watchdog may be disarmed; after an error
// others may rely on it, and it must not be. It tries until ctx ends.
func (r *Reader) Stop(ctx context.Context) error {
	r.end()
	ended := make(chan error, 1)
	go func() { ended <- r.stop(ctx) }() // a disk may hang
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("say on the sbd disk that the watchdog is not armed: %w", context.Cause(ctx))
	}
}

func (r *Reader) stop(ctx context.Context) error {
	<-r.done
	s := r.said
	s.Armed = false
	for {
		err := r.sayLast(s)
		if err == nil || errors.Is(err, ErrPill) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("say on the sbd disk that the watchdog is not armed: %w", err)
		case <-time.After(lastTries):
		}
	}
}

func (r *Reader) sayLast(s Slot) error {
	err := r.read() // also opens the disk, if it has to be
	if errors.Is(err, ErrAnew) {
		return nil // what others relied on is gone
	}
	if err != nil {
		return err
	}
	if err := r.say(s); err != nil {
		return err
	}
	if err := r.read(); err != nil {
		return err
	}
	return r.area.disk.Close()
}

// Halt ends the reading and says nothing: what others may rely on stays.
func (r *Reader) Halt() { r.end() }
