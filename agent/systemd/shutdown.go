package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/godbus/dbus/v5"
)

// Shutdown is logind's promise to ask before it shuts the machine down. It then
// waits for Release, at most for its own InhibitDelayMaxSec: until then every unit
// and mount of the machine is as it was, so the agent can stop its services one
// after the other.
type Shutdown struct {
	conn *dbus.Conn
	lock *os.File
	// Begins gets true when the machine is about to go down, false when that is
	// called off. It is closed when the bus is gone.
	Begins <-chan bool
}

const (
	logindName     = "org.freedesktop.login1"
	logindPath     = dbus.ObjectPath("/org/freedesktop/login1")
	logindManager  = logindName + ".Manager"
	prepareMember  = "PrepareForShutdown"
	isPreparing    = logindManager + ".PreparingForShutdown"
	logindPatience = 10 * time.Second // with one answer; the bus may have to start it
)

// DelayShutdown asks logind for that, until ctx ends.
func DelayShutdown(ctx context.Context) (*Shutdown, error) {
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return nil, fmt.Errorf("reach logind: %w", err)
	}
	s, err := delay(ctx, conn)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("have logind delay a shutdown: %w", err), conn.Close())
	}
	return s, nil
}

func delay(ctx context.Context, conn *dbus.Conn) (*Shutdown, error) {
	ctx, cancel := context.WithTimeout(ctx, logindPatience)
	defer cancel()
	signals := make(chan *dbus.Signal, 4)
	conn.Signal(signals) // before the lock: nothing is missed
	err := conn.AddMatchSignalContext(ctx, dbus.WithMatchObjectPath(logindPath), dbus.WithMatchInterface(logindManager), dbus.WithMatchMember(prepareMember))
	if err != nil {
		return nil, err
	}
	var fd dbus.UnixFD
	err = conn.Object(logindName, logindPath).CallWithContext(ctx, logindManager+".Inhibit", 0,
		"shutdown", "hapair", "services are stopped in order and handed to the peer", "delay").Store(&fd)
	if err != nil {
		return nil, err
	}
	begins := make(chan bool, 1)
	go listen(signals, begins, func() (bool, error) { return preparing(conn) })
	return &Shutdown{conn: conn, lock: os.NewFile(uintptr(fd), "inhibit"), Begins: begins}, nil
}

// preparing asks logind itself: everybody on the bus can send a signal.
func preparing(conn *dbus.Conn) (down bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), logindPatience)
	defer cancel()
	var v dbus.Variant
	err = conn.Object(logindName, logindPath).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, logindManager, "PreparingForShutdown").Store(&v)
	if err != nil {
		return false, fmt.Errorf("ask logind for %s: %w", isPreparing, err)
	}
	down, ok := v.Value().(bool)
	if !ok {
		return false, fmt.Errorf("ask logind for %s: it answers %s", isPreparing, v)
	}
	return down, nil
}

// listen asks at each signal what there is to it, and tells what is new, until
// there are no more signals.
func listen(signals <-chan *dbus.Signal, begins chan bool, ask func() (bool, error)) {
	defer close(begins)
	was := false
	for range signals {
		down, err := ask()
		if err != nil || down == was {
			continue // a shutdown that logind cannot tell of ends this process by SIGTERM
		}
		was = down
		select {
		case <-begins: // nobody has taken it, and it is not so any more
		default:
		}
		begins <- down
	}
}

// Release lets the machine go down. Begins goes on.
func (s *Shutdown) Release() error {
	if err := s.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("let the machine go down: %w", err)
	}
	return nil
}

// Close ends it; a machine that waits goes down.
func (s *Shutdown) Close() error { return errors.Join(s.conn.Close(), s.Release()) }
