package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/agent/systemd"
	"hapair/failover"
	"hapair/failover/ledger"
	"hapair/fencing/sbd"
	"hapair/fencing/watchdog"
	kernel "hapair/kernel/watchdog"
	"hapair/mirror/state"
)

const (
	// stuckFor is after how long a loop that does not come round has the machine
	// reset. Systemd ends the agent long before, where it watches.
	stuckFor = time.Minute
	// stageSlack is what a stage of the start or the stop may take beyond its bound.
	stageSlack = 15 * time.Second
	// bootFile holds the boot in which the watchdog was armed and not disarmed, and the
	// disk with pills on which others may have read that.
	bootFile = "watchdog-armed"
)

// dog has this machine reset when its agent does not go on.
type dog struct {
	clock  func() time.Duration
	life   sbd.ID // of this boot
	timer  watchdog.Timer
	keeper *watchdog.Keeper
	poison *poison                       // nil: there is no disk with pills
	ledger atomic.Pointer[ledger.Ledger] // nil before it is open
	marker string                        // file
	// former says that an earlier life of the agent, in this boot, did not end in
	// order: what it served may still be there.
	former bool
	relied string          // by what it noted of a disk with pills; "" for none
	stage  atomic.Int64    // until when, on the clock, what is begun may last; 0: the loops turn
	asked  <-chan struct{} // closed when the agent is asked to end

	// Of alive, which nobody asks twice at a time.
	loops  []systemd.Loop
	looked time.Duration
	began  time.Duration // since when loops are looked at without a break
}

// stage says what is being done, of a start or a stop, and how long it may take.
func (a *agent) stage(text string, within time.Duration) {
	a.boss.Stage(text, within)
	if a.dog != nil {
		a.dog.stage.Store(int64(a.clock() + within + stageSlack))
	}
}

// startWatchdog arms the machine's watchdog: before anything that others may rely
// on is begun.
func (a *agent) startWatchdog(ctx context.Context) error {
	w := a.cfg.Watchdog
	if w == nil || a.witness() {
		return nil
	}
	a.awaitDevices(ctx, below("/dev/", w.Device, a.cfg.SBDOf(a.self)))
	boot, err := bootID()
	if err != nil {
		return fmt.Errorf("which boot this is: %w", err)
	}
	d := &dog{clock: a.clock, asked: ctx.Done(), life: sbd.Name(boot), marker: filepath.Join(a.cfg.RunDir, bootFile)}
	if d.former, d.relied, err = d.armedIn(boot); err != nil {
		return err
	}
	p, timeout, err := a.poisonOf(d, boot, w.Timeout)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.marker, []byte(boot+"\n"+p.disk()+"\n"), 0o600); err != nil {
		return fmt.Errorf("note that the watchdog is armed: %w", err)
	}
	if d.timer, err = openWatchdog(w.Device, timeout, d.former); err != nil {
		return errors.Join(err, d.forget())
	}
	needs, err := p.start(a, d.timer.Info().Timeout, d.relied != "")
	if err != nil {
		return errors.Join(err, d.timer.Leave())
	}
	if w.OnNoQuorum == config.WatchdogReset {
		needs = append(needs, watchdog.Need{Name: "the lease", Why: a.leaseless})
	}
	a.keepWatchdog(d, p, needs)
	a.armed(d.timer.Info(), w.Timeout, d.former)
	return nil
}

// keepWatchdog begins to pet.
func (a *agent) keepWatchdog(d *dog, p *poison, needs []watchdog.Need) {
	d.stage.Store(int64(a.clock() + stopPatience + stageSlack))
	needs = append([]watchdog.Need{{Name: "the agent", Why: d.alive}}, needs...)
	d.keeper = watchdog.Start(d.timer, watchdog.Config{Clock: a.clock, Log: a.log, Tell: a.watchdogTells}, needs...)
	if d.poison = p; p != nil {
		close(p.armed)
	}
	a.dog = d
	a.onStop("watchdog", func(ctx context.Context) error {
		if a.failed && !d.former && d.timer.Info().NoWayOut {
			a.petOn()
			anew, cancel := context.WithTimeout(context.Background(), stopPatience)
			defer cancel()
			ctx = anew
		}
		return d.stop(ctx, a.failed)
	})
}

// below are those of some paths that lie in a directory.
func below(dir string, paths ...string) (some []string) {
	for _, p := range paths {
		if strings.HasPrefix(p, dir) {
			some = append(some, p)
		}
	}
	return some
}

// armedIn reports whether the watchdog was armed in this boot, and not disarmed, and on
// which disk with pills others may have read that.
func (d *dog) armedIn(boot string) (armed bool, disk string, err error) {
	text, err := os.ReadFile(d.marker)
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	}
	if err != nil {
		return false, "", fmt.Errorf("whether the watchdog is armed: %w", err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	if first != boot {
		return false, "", nil
	}
	return true, strings.TrimSpace(rest), nil
}

// forget takes the note away, unless an earlier life has left a watchdog armed.
func (d *dog) forget() error {
	if d.former {
		return nil
	}
	return os.Remove(d.marker)
}

// armed says what the driver made of what was asked.
func (a *agent) armed(i kernel.Info, wanted time.Duration, former bool) {
	a.log.Info("the watchdog is armed", zap.String("device", i.Path), zap.String("driver", i.Identity), zap.Duration("timeout", i.Timeout), zap.Bool("former", former))
	if i.Timeout != wanted {
		a.log.Warn("the driver of the watchdog has another time-out", zap.Duration("wanted", wanted), zap.Duration("has", i.Timeout))
	}
	if i.NoWayOut {
		a.log.Warn("the watchdog cannot be disarmed (nowayout): when the agent is stopped the machine is reset", zap.Duration("within", i.Timeout))
	}
	text := fmt.Sprintf("the watchdog %s (%s) is armed: this machine is reset when it is not petted for %s", i.Path, i.Identity, i.Timeout)
	if i.WasReset && !former {
		text += "; by its driver's word it was a watchdog that reset this machine last"
	}
	a.event(apiv1.EventAgent, "", text)
}

func (a *agent) watchdogTells(text string, problem bool) {
	kind := apiv1.EventAgent
	if problem {
		kind = apiv1.EventProblem
	}
	a.event(kind, "", text)
}

// runs has the loops looked at from now on.
func (d *dog) runs(loops []systemd.Loop) {
	if d == nil {
		return
	}
	now := d.clock()
	d.keeper.With(func() { d.loops, d.looked, d.began = loops, now, now })
	d.stage.Store(0)
}

// alive says what of the agent does not go on.
func (d *dog) alive(now time.Duration) string {
	if until := time.Duration(d.stage.Load()); until != 0 {
		if now < until {
			return ""
		}
		return "its start, or its stop, does not go on"
	}
	if now-d.looked > stuckFor/2 { // and with this look all loops stood still
		d.began = now
	}
	d.looked = now
	var stuck []string
	for _, l := range d.loops {
		if now-max(l.Turned(), d.began) > stuckFor {
			stuck = append(stuck, l.Name)
		}
	}
	if len(stuck) == 0 {
		return ""
	}
	return "does not go on: " + strings.Join(stuck, ", ")
}

// leaseless says which resource is Primary here without a lease. Maintenance means
// that nothing is done by itself.
func (a *agent) leaseless(now time.Duration) string {
	if !a.opened.Load() || a.ledger.Marked(failover.MarkMaintenance) {
		return ""
	}
	var all []string
	for _, r := range a.order {
		if r.mirror.View().Role == state.Primary && !a.ledger.Lease(r.name).Valid(now) {
			all = append(all, r.name+" is Primary without one")
		}
	}
	return strings.Join(all, ", ")
}

// petOn is the end of a start that failed where the watchdog cannot be disarmed and
// nothing of an earlier life is there: the machine would be reset, and again by the next
// boot, for a mistake that nobody has the time to correct. So it is petted until this
// process is told to end. Systemd does so after its time for a start, and starts it anew.
func (a *agent) petOn() {
	const text = "the start failed, and the watchdog cannot be disarmed (nowayout): it is petted until this process is told to end. Then it has to be started again in time, or the machine is reset"
	a.log.Error(text, zap.Duration("within", a.dog.timer.Info().Timeout))
	a.event(apiv1.EventProblem, "", text)
	a.dog.stage.Store(0)
	<-a.dog.asked
	a.stage("stopping: watchdog", stopPatience)
}

// stop disarms the watchdog, because the agent ends in order. After a start that
// failed what an earlier life served may still be there, and nobody sees to it: then
// the machine is reset.
func (d *dog) stop(ctx context.Context, failed bool) error {
	if failed && d.former {
		d.poison.halt()
		return errors.Join(fmt.Errorf("the watchdog stays armed: an earlier life of this agent did not end in order, and this one does not start"), d.keeper.Leave())
	}
	if err := d.poison.stop(ctx); err != nil {
		return errors.Join(fmt.Errorf("the watchdog stays armed, and resets this machine: %w", err), d.keeper.Leave())
	}
	if err := d.keeper.Disarm(); err != nil {
		return err
	}
	return os.Remove(d.marker)
}

// bites is the time after which a process that stands still is no more, 0: none.
func (d *dog) bites() time.Duration {
	if d == nil {
		return 0
	}
	return d.keeper.Status().Timeout
}

// watchdogStatus is what the status says of it, nil without one.
func (a *agent) watchdogStatus() *apiv1.Watchdog {
	if a.dog == nil {
		return nil
	}
	s := a.dog.keeper.Status()
	disk, because := a.dog.poison.status()
	return &apiv1.Watchdog{Disk: disk, DiskBecause: because, Device: s.Path, Driver: s.Identity, TimeoutMS: s.Timeout.Milliseconds(), PettedMS: s.Petted.Milliseconds(), Because: s.Withheld,
		PetsTotal: s.Pets, NoWayOut: s.NoWayOut, OnNoQuorum: string(a.cfg.Watchdog.OnNoQuorum)}
}

func openKernelWatchdog(path string, timeout time.Duration, armed bool) (watchdog.Timer, error) {
	d, err := kernel.Open(path, timeout, armed)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// kernelBoot names this boot of the machine.
func kernelBoot() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}
