package sbd

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"hapair/fencing/device"
)

// DeviceConfig is what a Device goes by.
type DeviceConfig struct {
	Path  string // for messages
	Open  func() (Disk, error)
	Look  func() (Disk, error) // for reading alone
	Owner Owner
	Self  string
	Node  string // whom it fences
	Life  ID     // of this node
	// Met returns the Word of the other node when the two met last, "" if it then said
	// that it reads no disk, and whether they have met.
	Met func() (word string, met bool)
	// Hears reports whether the two hear each other now, so that no fence that was asked
	// for before counts. It waits for nothing.
	Hears func() bool
	// Timeout is what one fence has.
	Timeout time.Duration
}

const (
	// lookEvery is how often a writer looks what became of its pill.
	lookEvery = time.Second
	// latest is what a reset takes, and what clocks of both nodes are read late by.
	latest = time.Second
	// slack is what reading and writing may take beside the wait.
	slack = 3 * time.Second
)

// Strikes is how long after it was asked for a pill is read, and the node that reads it
// down, where disks and processes are well. Where they are not, and both fence, both may
// be down.
const Strikes = slack + readEvery + latest

// Wait is how long after a pill is on the disk a node runs at the most, whose watchdog has
// that time-out and is petted by what was read at most valid ago. It may be about to
// pet by what it read just before the pill, and stand still right before it does: for less
// than a time-out, or that is its end. Then its agent may be killed, in less than another:
// the kernel pets once more as it closes a watchdog that stays armed. Then the last one
// runs. Clocks differ by 2 %.
func Wait(timeout, valid time.Duration) time.Duration {
	return (valid+3*timeout)*102/100 + latest
}

// Takes is how long a fence of a node with such a watchdog takes at the most.
func Takes(timeout time.Duration) time.Duration { return Wait(timeout, ValidFor(timeout)) + slack }

// hangsMax bounds what a disk is asked while it answers nothing: each question holds a
// thread until it does.
const hangsMax = 4

// Device fences a node by a pill. It is asked one thing at a time.
type Device struct {
	cfg   DeviceConfig
	asked atomic.Int32 // what the disk has not answered yet
}

// New returns a Device. It looks at nothing yet.
func New(cfg DeviceConfig) *Device { return &Device{cfg: cfg} }

// Name is the disk's.
func (d *Device) Name() string { return "sbd " + d.cfg.Path }

// refusal is why nothing was written.
type refusal struct{ error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// Unwrap returns what was refused for.
func (r refusal) Unwrap() error { return r.error }

// Off writes a pill, and waits until the node has certainly gone down. What it says
// of the disk before that is refused when it leaves any doubt whether a pill would
// work; afterwards any doubt is Unknown.
func (d *Device) Off(ctx context.Context, o device.Order) (device.Outcome, string) {
	var said string
	err := d.apart(ctx, hangsMax, func() (err error) {
		said, err = d.off(ctx, o)
		return err
	})
	switch no := (refusal{}); {
	case err == nil:
		return device.Confirmed, said
	case errors.As(err, &no):
		return device.Refused, err.Error()
	}
	return device.Unknown, err.Error()
}

// apart waits for do until ctx ends: a disk may hang. Then do is left behind, of which
// there are to be fewer than most.
func (d *Device) apart(ctx context.Context, most int32, do func() error) error {
	if d.asked.Add(1) > most {
		d.asked.Add(-1)
		return errors.New("the disk does not answer what it was asked before")
	}
	done := make(chan error, 1)
	go func() {
		defer d.asked.Add(-1)
		done <- do()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done: // it has heard of that too
		return err
	case <-time.After(latest):
		return fmt.Errorf("the disk does not answer: %w", context.Cause(ctx))
	}
}

func (d *Device) off(ctx context.Context, o device.Order) (said string, err error) {
	disk, err := d.cfg.Open()
	if err != nil {
		return "", refusal{err}
	}
	defer func() {
		if cerr := disk.Close(); err == nil && cerr != nil {
			err = cerr
		}
	}()
	a, s, err := d.judge(disk)
	if _, met := d.cfg.Met(); err == nil && !met {
		err = fmt.Errorf("this node has not met %s since it began: what is there may be old", d.cfg.Node)
	}
	if err == nil {
		err = ctx.Err() // while the disk hung
	}
	if err != nil {
		return "", refusal{err}
	}
	word, _ := d.cfg.Met()
	if t, ok := hear(word); ok && s.later(t) {
		return over(s), nil
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) < Wait(s.Timeout, s.Valid) {
		return "", refuse("its watchdog has %s, a fence takes %s, and there are %s: the device's timeout is to be %s", s.Timeout, Wait(s.Timeout, s.Valid),
			time.Until(end).Round(time.Millisecond), Takes(s.Timeout))
	}
	old, err := a.mail(d.cfg.Node)
	if err != nil && !errors.Is(err, ErrDamaged) { // by a writer that lost its power
		return "", refusal{err}
	}
	if err := ctx.Err(); err != nil {
		return "", refusal{err}
	}
	m := Mail{Pill: true, To: s.Life, From: d.cfg.Self, Why: o.Why, Seq: old.Seq + 1, At: time.Now()}
	if err := d.deliver(a, &m); err != nil {
		return "", err
	}
	if err := d.condemned(a); err != nil { // meanwhile, as this one stood still
		return "", errors.Join(err, d.withdraw(a, m))
	}
	return d.await(ctx, a, s, m)
}

// judge says whether a pill would work, by what is on the disk.
func (d *Device) judge(disk Disk) (a *area, s Slot, err error) {
	if a, err = take(disk, d.cfg.Owner); err != nil {
		return nil, s, err
	}
	if err = d.condemned(a); err != nil {
		return nil, s, err
	}
	if s, err = a.slot(d.cfg.Node); err != nil {
		return nil, s, err
	}
	word, met := d.cfg.Met()
	t, known := hear(word)
	switch {
	case !s.Armed:
		return nil, s, fmt.Errorf("%s says there that its watchdog is not armed: its agent was stopped in order, or reads no disk", d.cfg.Node)
	case met && word == "":
		return nil, s, fmt.Errorf("%s has said that it does not read the disk", d.cfg.Node)
	case met && !known:
		return nil, s, fmt.Errorf("%s is of a release that says something else of the disk that it reads", d.cfg.Node)
	case met && !s.fits(t) && !s.later(t):
		return nil, s, fmt.Errorf("what %s says there, life %.8s, is not of the machine that was met last, life %.8s: another machine, another disk that it reads, or this disk as it was before", d.cfg.Node, s.Life, t.life)
	case s.Timeout <= 0 || s.Valid <= 0:
		return nil, s, fmt.Errorf("%s says there that its watchdog has %s", d.cfg.Node, s.Timeout)
	}
	return a, s, nil
}

// condemned says that this node has a pill itself.
func (d *Device) condemned(a *area) error {
	own, err := a.mail(d.cfg.Self)
	switch {
	case err != nil && !errors.Is(err, ErrDamaged):
		return err
	case own.Pill && own.To == d.cfg.Life:
		return fmt.Errorf("this node itself is told to go down: %w", pill(own))
	}
	return nil
}

// deliver writes a pill, and sees that it is there.
func (d *Device) deliver(a *area, m *Mail) error {
	m.Disk = a.head.Disk
	if err := a.putMail(d.cfg.Node, *m); err != nil {
		return fmt.Errorf("it is not known whether the pill is on the disk: %w", err)
	}
	return d.same(a, *m)
}

// same reads the pill back.
func (d *Device) same(a *area, m Mail) error {
	got, err := a.mail(d.cfg.Node)
	if err != nil {
		return fmt.Errorf("the pill was written: %w", err)
	}
	if !got.Pill || got.Seq != m.Seq || got.To != m.To || got.From != m.From {
		return fmt.Errorf("the pill is not on the disk any more: it has number %d from %q, not %d", got.Seq, got.From, m.Seq)
	}
	return nil
}

// await waits until the node is down by all that is on the disk.
func (d *Device) await(ctx context.Context, a *area, was Slot, m Mail) (string, error) {
	wait := Wait(was.Timeout, was.Valid)
	over := time.NewTimer(wait) // from after the pill was seen
	defer over.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-over.C:
			return d.verdict(a, was, m, wait)
		case <-look.C:
			if now, err := a.slot(d.cfg.Node); err == nil && now.Life != was.Life {
				return anew(now, was)
			}
		case <-ctx.Done():
			// The two may have met, now or since: the disk may have taken it late.
			return "", errors.Join(fmt.Errorf("it was not waited for: %w", context.Cause(ctx)), d.withdraw(a, m))
		}
	}
}

// anew judges a node that has begun another life: the one that was met is over,
// unless it is another machine that has the node's name now.
func anew(now, was Slot) (string, error) {
	if now.Machine != was.Machine || now.Machine == (ID{}) || now.Seq <= was.Seq {
		return "", fmt.Errorf("%s has begun another life since, and it is not known that on the same machine", now.Node)
	}
	return over(now), nil
}

func over(s Slot) string {
	return s.Node + " has begun another life since: the one that was met is over"
}

// verdict looks a last time.
func (d *Device) verdict(a *area, was Slot, m Mail, wait time.Duration) (string, error) {
	now, err := a.slot(d.cfg.Node)
	switch {
	case err != nil:
		return "", fmt.Errorf("after the pill: %w", err)
	case now.Life != was.Life:
		return anew(now, was)
	case now.Seq != was.Seq || !now.Armed:
		return "", fmt.Errorf("%s has written to the disk since: its watchdog may have been another one, or disarmed, before it could see the pill", d.cfg.Node)
	}
	if err := d.same(a, m); err != nil {
		return "", err
	}
	return fmt.Sprintf("the pill was there for %s, and its watchdog has %s", wait, was.Timeout), nil
}

// withdraw takes a pill back that nobody waits for.
func (d *Device) withdraw(a *area, m Mail) error {
	if err := d.same(a, m); err != nil {
		return err
	}
	if err := a.putMail(d.cfg.Node, Mail{Seq: m.Seq + 1, At: time.Now()}); err != nil {
		return fmt.Errorf("take the pill back: %w", err)
	}
	return nil
}

// Monitor looks whether a pill would work now. While the two hear each other it takes
// back one that a fence has left, which counts no more; only then it opens the disk for
// writing.
func (d *Device) Monitor(ctx context.Context) error {
	return d.apart(ctx, 1, func() error {
		s, left, err := d.look()
		if err == nil && left && d.cfg.Hears() && ctx.Err() == nil {
			err = d.clear(ctx)
		}
		if err == nil && d.cfg.Timeout < Wait(s.Timeout, s.Valid)+slack {
			err = fmt.Errorf("the watchdog of %s has %s, so timeout is to be %s at least, and is %s", d.cfg.Node, s.Timeout, Wait(s.Timeout, s.Valid)+slack, d.cfg.Timeout)
		}
		return err
	})
}

// look reads what a pill would rely on, and whether one of this node's is left there.
func (d *Device) look() (s Slot, left bool, err error) {
	disk, err := d.cfg.Look()
	if err != nil {
		return s, false, err
	}
	a, s, err := d.judge(disk)
	if err == nil {
		_, left, err = d.left(a, s)
	}
	return s, left, errors.Join(err, disk.Close())
}

// left finds a pill of this node's for the life that is in the slot.
func (d *Device) left(a *area, s Slot) (m Mail, is bool, err error) {
	m, err = a.mail(d.cfg.Node)
	if err != nil && !errors.Is(err, ErrDamaged) { // by a writer that lost its power
		return m, false, err
	}
	return m, m.Pill && m.From == d.cfg.Self && m.To == s.Life, nil
}

// clear takes back a pill of this node's for the life that it hears now. A fence that
// begins meanwhile finds that its own was taken, if it was.
func (d *Device) clear(ctx context.Context) error {
	disk, err := d.cfg.Open()
	if err != nil {
		return err
	}
	a, s, err := d.judge(disk)
	if err == nil {
		var m Mail
		var is bool
		if m, is, err = d.left(a, s); err == nil && is && d.cfg.Hears() && ctx.Err() == nil {
			err = d.withdraw(a, m)
		}
	}
	return errors.Join(err, disk.Close())
}
