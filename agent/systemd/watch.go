package systemd

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
)

// Loop is one of the loops without which this process does not do its work.
type Loop struct {
	Name string
	// Turned is when it last came round, on Watch.Clock. It asks for another turn
	// where the loop would not come round by itself, and waits for nothing.
	Turned func() time.Duration
}

// Watch is what is looked at while the process runs.
type Watch struct {
	Clock  func() time.Duration
	Loops  []Loop
	Status func() string // for systemctl status
}

const (
	lookEvery = time.Second
	// unwatched is the patience with a loop where no watchdog is asked for; it is
	// then only logged.
	unwatched = 15 * time.Second
	// standsStill is after how long without a look the whole process has stood still.
	standsStill = 5 * lookEvery
)

// Watch tells the status when it changes, and pets the watchdog while every loop
// turns round, until ctx ends. A loop that has not for half of the watchdog's time
// ends that: then the manager ends this process, whose abort shows where every
// goroutine stands, and starts it again.
func (m *Manager) Watch(ctx context.Context, w Watch) {
	l := look{Watch: w, manager: m, began: w.Clock()}
	l.petted, l.looked = l.began, l.began
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if words := l.turn(); len(words) > 0 {
				m.tell(words...)
			}
		}
	}
}

// look is a Watch under way.
type look struct {
	Watch
	manager *Manager
	began   time.Duration // since when loops are looked at without a break
	looked  time.Duration
	petted  time.Duration
	stuck   []string
	status  string
}

// turn is one look, and what there is to tell.
func (l *look) turn() (words []string) {
	now := l.Clock()
	if now-l.looked > standsStill { // and with this one all others
		l.began = now
	}
	l.looked = now
	stuck := l.standStill(now)
	if !slices.Equal(stuck, l.stuck) {
		l.report(stuck)
	}
	status := strings.Join(stuck, ", ")
	if status != "" {
		status = "does not go on: " + status
	} else {
		status = l.Status()
	}
	if status != l.status {
		l.status = status
		words = append(words, statusLine(status))
	}
	if every := l.manager.watchdog; every > 0 && len(stuck) == 0 && now-l.petted >= every/4 {
		l.petted = now
		words = append(words, daemon.SdNotifyWatchdog)
	}
	return words
}

// standStill names the loops that have not come round for too long.
func (l *look) standStill(now time.Duration) (names []string) {
	patience := unwatched
	if l.manager.watchdog > 0 {
		patience = l.manager.watchdog / 2
	}
	for _, x := range l.Loops {
		if now-max(x.Turned(), l.began) > patience {
			names = append(names, x.Name)
		}
	}
	return names
}

func (l *look) report(stuck []string) {
	log := l.manager.log
	if was := l.stuck; len(stuck) == 0 {
		log.Warn("all loops turn round again", zap.Strings("was", was))
	} else {
		log.Error("loops do not turn round any more: the watchdog is not petted", zap.Strings("now", stuck), zap.Duration("watchdog", l.manager.watchdog))
	}
	l.stuck = stuck
}
