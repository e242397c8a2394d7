// Package watchdog has a machine fence itself: its watchdog is petted while all
// that has to be true of this node is, and no longer. What that is, others say.
package watchdog

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	kernel "hapair/kernel/watchdog"
)

// Timer is a watchdog that is armed; kernel/watchdog has a real one.
type Timer interface {
	Info() kernel.Info
	Pet() error
	Disarm() error // ends it in order
	Leave() error  // closes it as it is: armed
}

// Need is one thing that has to be so for the watchdog to be petted. Why is asked
// at each turn with the time on Config.Clock, waits for nothing, and returns ""
// while it is so, else why not.
type Need struct {
	Name string
	Why  func(now time.Duration) string
}

// Config is what a Keeper goes by.
type Config struct {
	Clock func() time.Duration // counts suspended time
	Log   *zap.Logger
	// Tell is told when the watchdog is no longer petted, and when it is again; nil:
	// nobody. It should be quick.
	Tell func(text string, problem bool)
}

// Status is what became of a watchdog.
type Status struct {
	kernel.Info
	Petted   time.Duration // since it was last petted
	Withheld string        // why it is not petted; "" while it is
	Pets     uint64
}

// The bounds of a turn.
const (
	turnMin = 50 * time.Millisecond
	turnMax = time.Second
	turns   = 8 // in one time-out
)

// Keeper pets a watchdog. Its methods are safe for concurrent use.
type Keeper struct {
	cfg   Config
	timer Timer
	info  kernel.Info
	end   context.CancelFunc
	done  chan struct{}

	mu       sync.Mutex
	needs    []Need
	doomed   string // why it is not petted any more, for good; ""
	withheld string
	petted   time.Duration // on the clock
	pets     uint64
}

// Start begins to pet. The Keeper has the timer from then on.
func Start(timer Timer, cfg Config, needs ...Need) *Keeper {
	k := &Keeper{cfg: cfg, timer: timer, info: timer.Info(), done: make(chan struct{}), needs: needs}
	k.petted = cfg.Clock()
	ctx, end := context.WithCancel(context.Background())
	k.end = end
	go k.run(ctx)
	return k
}

func (k *Keeper) run(ctx context.Context) {
	defer close(k.done)
	t := time.NewTicker(min(max(k.info.Timeout/turns, turnMin), turnMax))
	defer t.Stop()
	for {
		k.turn()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// turn pets, unless something is not as it has to be. The pet itself is no reason for
// anybody to wait: a board that hangs may take many seconds.
func (k *Keeper) turn() {
	now, why := k.look()
	var err error
	if why == "" {
		err = k.timer.Pet()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case why != "":
	case err != nil:
		why = err.Error()
	default:
		k.petted, k.pets = now, k.pets+1
	}
	if k.doomed != "" { // meanwhile
		why = k.doomed
	}
	k.withhold(why)
}

// look says what keeps the watchdog from being petted now.
func (k *Keeper) look() (now time.Duration, why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now = k.cfg.Clock()
	if still := now - k.petted; k.withheld == "" && still > k.info.Timeout {
		k.cfg.Log.Warn("the watchdog was not petted for longer than its time-out, and the machine was not reset: a virtual machine that stood still, or a watchdog that does not bite",
			zap.Duration("for", still), zap.Duration("timeout", k.info.Timeout))
	}
	return now, k.why(now)
}

// withhold notes why it is not petted, "" if it is, and tells of a change. mu is held.
func (k *Keeper) withhold(why string) {
	if (why == "") != (k.withheld == "") {
		k.tell(why)
	}
	k.withheld = why
}

// why says what keeps the watchdog from being petted. mu is held.
func (k *Keeper) why(now time.Duration) string {
	if k.doomed != "" {
		return k.doomed
	}
	var all []string
	for _, n := range k.needs {
		if why := n.Why(now); why != "" {
			all = append(all, n.Name+": "+why)
		}
	}
	return strings.Join(all, "; ")
}

func (k *Keeper) tell(why string) {
	text, problem := "the watchdog is petted again", why != ""
	if problem {
		text = fmt.Sprintf("the watchdog is not petted: %s. If that lasts for %s, the machine is reset", why, k.info.Timeout)
		k.cfg.Log.Error(text)
	} else {
		k.cfg.Log.Warn(text)
	}
	if k.cfg.Tell != nil {
		k.cfg.Tell(text, problem)
	}
}

// Add adds what has to be so from now on.
func (k *Keeper) Add(n Need) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.needs = append(k.needs, n)
}

// With calls do while no need is asked.
func (k *Keeper) With(do func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	do()
}

// Condemn ends the petting for good. It waits for no pet: when it returns one may be
// under way that was decided on before, and there is no other.
func (k *Keeper) Condemn(why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.doomed = why
	k.withhold(why)
}

// Status returns what has become of it.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Status{Info: k.info, Petted: k.cfg.Clock() - k.petted, Withheld: k.withheld, Pets: k.pets}
}

// Disarm ends the petting and the watchdog; one that is condemned is left armed.
func (k *Keeper) Disarm() error {
	k.end()
	<-k.done
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.doomed != "" {
		return k.timer.Leave()
	}
	return k.timer.Disarm()
}

// Leave ends the petting only: the machine is reset, unless another life of the
// agent goes on with it in time.
func (k *Keeper) Leave() error {
	k.end()
	<-k.done
	return k.timer.Leave()
}
