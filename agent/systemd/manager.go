package systemd

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
)

// slack is what a stage gets beyond its own bound before the service manager
// takes it for hung.
const slack = 10 * time.Second

// statusBytesMax bounds the line that systemctl status shows.
const statusBytesMax = 400

// Manager is who started this process, if that wants to be told how it fares.
// Its methods wait for nobody, and are safe for concurrent use.
type Manager struct {
	log      *zap.Logger
	watchdog time.Duration // within which it wants a word; 0: never
	failed   atomic.Bool   // the last word did not reach it
}

// New finds the manager in the environment. One that is not there is told
// nothing.
func New(log *zap.Logger) *Manager {
	m := &Manager{log: log}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog is not petted", zap.Error(err))
	}
	m.watchdog = every
	return m
}

// Present reports whether somebody wants to be told.
func (m *Manager) Present() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Ready says that the start is complete.
func (m *Manager) Ready(status string) { m.tell(daemon.SdNotifyReady, statusLine(status)) }

// Stage says what is being done, of a start or a stop, and that it may take so
// long from now.
func (m *Manager) Stage(text string, within time.Duration) {
	m.tell(statusLine(text), moreTime(within))
}

// Emptying says that the end has begun, which the manager itself has not asked for
// and is to ask for yet: told that this process stops, it would wait for that alone.
// The watchdog rests for so long.
func (m *Manager) Emptying(text string, within time.Duration) {
	words := []string{statusLine(text)}
	if m.watchdog > 0 {
		words = append(words, watchdogWithin(within))
	}
	m.tell(words...)
}

// Rest is for a process that stands still for a while, as it was asked to.
func (m *Manager) Rest(lasts time.Duration) {
	if m.watchdog == 0 {
		return
	}
	m.tell(watchdogWithin(lasts + m.watchdog))
	time.AfterFunc(lasts, func() { m.tell(watchdogWithin(m.watchdog), daemon.SdNotifyWatchdog) })
}

func watchdogWithin(d time.Duration) string { return fmt.Sprintf("WATCHDOG_USEC=%d", d.Microseconds()) }

// Stopping says that the end has begun.
func (m *Manager) Stopping(text string) { m.tell(daemon.SdNotifyStopping, statusLine(text)) }

func statusLine(text string) string {
	text = strings.Join(strings.Fields(text), " ") // one line: what comes after it would be another word
	if len(text) > statusBytesMax {
		text = strings.ToValidUTF8(text[:statusBytesMax], "") + " …"
	}
	return "STATUS=" + text
}

func moreTime(within time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (within + slack).Microseconds())
}

// tell sends words. That they do not arrive is logged once in a row: the manager
// draws its own conclusions.
func (m *Manager) tell(words ...string) {
	_, err := daemon.SdNotify(false, strings.Join(words, "\n"))
	if was := m.failed.Swap(err != nil); err != nil && !was {
		m.log.Warn("the service manager was not told", zap.Strings("words", words), zap.Error(err))
	}
}
