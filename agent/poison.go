package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/fencing/device"
	"hapair/fencing/sbd"
	"hapair/fencing/watchdog"
)

// pillPatience is how long a disk with pills is waited for when the agent starts.
const pillPatience = 15 * time.Second

// poison is what this node reads on the disk that it may be fenced by.
type poison struct {
	path   string
	life   sbd.ID
	reader *sbd.Reader   // nil: it does not read
	why    error         // why not
	armed  chan struct{} // closed when there is a keeper
}

// poisonOf looks for a pill, before the watchdog is armed: nil where there is no such
// disk. A disk that cannot be read is gone on without, and said to the other node, which
// then relies on nothing; but where an earlier life, in this boot, has said on a disk that
// the watchdog is armed, the other one may rely on that: then it is an error, and so is
// another disk, or none. The returned time-out is that of the earlier life, if there was
// one.
func (a *agent) poisonOf(d *dog, boot string, timeout time.Duration) (*poison, time.Duration, error) {
	path := a.cfg.SBDOf(a.self)
	if path == "" {
		return nil, timeout, d.relies("")
	}
	p := &poison{path: path, life: sbd.Name(boot), armed: make(chan struct{})}
	cfg := sbd.ReaderConfig{Open: func() (sbd.Disk, error) { return sbd.OpenDisk(path) }, Owner: a.cfg.SBDOwner(), Self: a.self, Life: p.life, Machine: machineName(),
		Former: d.former, Clock: a.clock, Log: a.log, Heard: d.heard, Doom: p.doom(a, d), Tell: a.watchdogTells}
	type found struct {
		r       *sbd.Reader
		timeout time.Duration
		err     error
	}
	done := make(chan found, 1)
	go func() { // a disk may hang
		r, t, err := sbd.Find(cfg, timeout)
		done <- found{r, t, err}
	}()
	f := found{timeout: timeout}
	select {
	case f = <-done:
	case <-time.After(pillPatience):
		f.err = fmt.Errorf("sbd %s: no answer for %s", path, pillPatience)
	}
	switch {
	case errors.Is(f.err, sbd.ErrPill):
		a.log.Error("this node is told to go down", zap.Error(f.err))
		return nil, timeout, errors.Join(f.err, resetNow(nil, a.cfg.Watchdog.Device))
	case f.err != nil && d.relied != "":
		return nil, timeout, fmt.Errorf("%w, and nobody knows whether this node is to go down: %w", d.relies(""), f.err)
	case f.err != nil:
		p.fails(a, f.err)
		return p, f.timeout, nil
	}
	p.reader = f.r
	return p, f.timeout, d.relies(p.disk())
}

// relies is an error where others may rely on what an earlier life has said on a disk,
// and this one does not read it.
func (d *dog) relies(disk string) error {
	if d.relied == "" || d.relied == disk {
		return nil
	}
	return fmt.Errorf("an earlier life of this agent has said on the sbd disk %s that the watchdog is armed, and did not end in order: this one reads %s, so the watchdog is left to reset the machine", d.relied, cmp.Or(disk, "none"))
}

// disk names the disk that is read, "" for none.
func (p *poison) disk() string {
	if p == nil || p.reader == nil {
		return ""
	}
	return p.reader.Disk().String()
}

// fails goes on without the disk.
func (p *poison) fails(a *agent, err error) {
	p.reader, p.why = nil, fmt.Errorf("the disk was not read when the agent started, so this node cannot be fenced by it until its agent is started again: %w", err)
	a.log.Error("no sbd", zap.Error(p.why))
	a.event(apiv1.EventProblem, "", p.why.Error())
}

// doom is the end of this machine.
func (p *poison) doom(a *agent, d *dog) func(string) {
	return func(why string) {
		<-p.armed // there is a keeper
		condemned := make(chan struct{})
		go func() { // neither is to wait for the other: either may be all that works
			defer close(condemned)
			d.keeper.Condemn(why)
		}()
		if err := resetNow(d.timer, a.cfg.Watchdog.Device); err != nil {
			a.log.Error("the machine is not reset at once; its watchdog does it", zap.Error(err))
		}
		<-condemned
	}
}

// start says that the watchdog is armed, and reads from then on. relied says that others
// may rely on that.
func (p *poison) start(a *agent, timeout time.Duration, relied bool) ([]watchdog.Need, error) {
	if p == nil || p.reader == nil {
		return nil, nil
	}
	if err := p.reader.Start(timeout); err != nil {
		if relied {
			return nil, err
		}
		p.fails(a, err)
		return nil, nil
	}
	return []watchdog.Need{{Name: "sbd", Why: p.reader.Why}}, nil
}

// halt ends the reading and says nothing.
func (p *poison) halt() {
	if p != nil && p.reader != nil {
		p.reader.Halt()
	}
}

// stop says that the watchdog is not armed any more. After an error it is to be left so.
func (p *poison) stop(ctx context.Context) error {
	if p == nil || p.reader == nil {
		return nil
	}
	return p.reader.Stop(ctx)
}

// heard is the latest instant at which no fence of this node would count.
func (d *dog) heard() time.Duration {
	if l := d.ledger.Load(); l != nil {
		if at, ok := l.Certain(); ok {
			return at
		}
	}
	return sbd.Never
}

// word is what the other node is told of this one's watchdog, "" where it must not rely
// on one.
func (d *dog) word() string {
	if d == nil || d.poison == nil || d.poison.reader == nil {
		return ""
	}
	return d.poison.reader.Word()
}

// status is the disk, and why it is not read.
func (p *poison) status() (disk, because string) {
	switch {
	case p == nil:
		return "", ""
	case p.reader == nil:
		return p.path, p.why.Error()
	}
	return p.path, errText(p.reader.Trouble())
}

// pills fences a node by the disk that it reads.
func (a *agent) pills(node string, d *config.FenceDevice) device.Device {
	path := d.SBD
	return sbd.New(sbd.DeviceConfig{Path: path, Open: func() (sbd.Disk, error) { return sbd.OpenDisk(path) }, Look: func() (sbd.Disk, error) { return sbd.LookAtDisk(path) },
		Owner: a.cfg.SBDOwner(), Self: a.self, Node: node, Life: a.dog.life, Met: a.ledger.PeerLife, Hears: a.ledger.HearsPeer, Timeout: d.Timeout})
}

// machineName names this machine, zero where it has no name.
func machineName() sbd.ID {
	text, err := os.ReadFile("/etc/machine-id")
	if name := strings.TrimSpace(string(text)); err == nil && name != "" {
		return sbd.Name("machine " + name)
	}
	return sbd.ID{}
}

// sysrq resets the machine at once: nothing is written out, nobody is told.
func sysrq(watchdog.Timer, string) error {
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0); err != nil {
		return fmt.Errorf("reset the machine: %w", err)
	}
	return nil
}
