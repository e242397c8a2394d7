package deadman

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"hapair/failover/lease"
)

// Descriptors of the helper.
const (
	ordersFD = 3
	pageFD   = 4
)

// Command is the argument by which the agent's program becomes the helper.
const Command = "deadman"

// orderBytesMax bounds one order.
const orderBytesMax = 4096

// Serve is the helper. It takes orders until the agent is gone, and ends when
// nothing is left to take away. Lock is a file of which only one helper at a
// time holds the lock: one that an earlier life of the agent left is awaited. It
// heeds no signal that can be ignored.
func Serve(lock string) error {
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		fmt.Fprintf(os.Stderr, "deadman: its memory is not locked: %v\n", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		fmt.Fprintf(os.Stderr, "deadman: the kernel may end it when memory is short: %v\n", err)
	}
	page, err := mapPage(os.NewFile(pageFD, "deadman page"))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the deadman's lock: %w", err)
	}
	for { // until the last one has ended; it does so at the end of its lease
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("wait for the deadman's lock: %w", err)
	}
	s := server{clock: lease.Boottime(), until: page.until, silence: silence, remove: remove, there: there, log: os.Stderr}
	return s.run(os.NewFile(ordersFD, "orders"))
}

func remove(h Held) error { return h.Clear() }

// there has one that cannot be looked for taken away as well: that tells why.
func there(h Held) bool {
	present, err := h.Present()
	return present || err != nil
}

// silence is for what takes longer to remove.
func silence(h Held) {
	if h.Virtual() || h.SourceFor.IsValid() {
		h.Silence()
	}
}

// server is the helper without its process.
type server struct {
	watch   watch
	clock   lease.Clock
	until   func(slot int) time.Duration
	silence func(Held) // as much of remove as is quick
	remove  func(Held) error
	there   func(Held) bool
	log     io.Writer
}

// run carries orders out, each answered with itself, until conn ends and
// nothing is armed any more.
func (s *server) run(conn io.ReadWriter) error {
	lines, failed := make(chan []byte), make(chan error, 1)
	go func() {
		in := bufio.NewScanner(conn)
		in.Buffer(nil, orderBytesMax)
		for in.Scan() {
			lines <- append(append([]byte(nil), in.Bytes()...), '\n')
		}
		failed <- in.Err()
		close(lines)
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		armed, wait := s.turn()
		if !armed && lines == nil {
			return nil
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case line, ok := <-lines:
			if !ok {
				lines = nil
				s.sayIf("orders end", <-failed)
				continue
			}
			if err := s.obey(line); err != nil {
				return err
			}
			if _, err := conn.Write(line); err != nil {
				s.sayIf("answer", err)
			}
		}
	}
}

// obey carries one order out.
func (s *server) obey(line []byte) error {
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("order %q: %w", line, err)
	}
	for _, h := range []*holding{o.Hold, o.Release} {
		if h != nil && (h.Slot < 0 || h.Slot >= slots) {
			return fmt.Errorf("order %q: slot %d, want 0 to %d", line, h.Slot, slots-1)
		}
	}
	if o.Hold != nil {
		s.watch.hold(*o.Hold)
	}
	if o.Release != nil {
		s.watch.release(*o.Release)
	}
	return nil
}

// turn takes away what is due: first every address, then the devices that were made for
// some, each of which takes the kernel as long as there may be left. Last it looks whether
// what it took earlier is still gone: an agent that hung may have been about to add it.
func (s *server) turn() (armed bool, wait time.Duration) {
	gone, armed, wait := s.watch.due(s.clock(), s.until)
	for _, i := range gone {
		if h := s.watch.held[i]; s.until(h.Slot)-Lead <= s.clock() {
			s.silence(h.Held)
		}
	}
	for _, i := range gone {
		h := s.watch.held[i]
		end := s.until(h.Slot)
		if end-Lead > s.clock() {
			wait = 0 // renewed at the last moment
			continue
		}
		if err := s.remove(h.Held); err != nil {
			s.sayIf("take "+h.Prefix.String()+" away", err)
			wait = min(wait, again)
			continue
		}
		s.watch.took(i, end)
		wait = min(wait, again)
		if end > 0 {
			s.say("the lease of %s has run out: %s is taken from %s", h.Resource, h.Prefix, h.Dev)
		}
	}
	if s.watch.back(gone, s.until, s.there) {
		armed, wait = true, 0
	}
	return armed, wait
}

func (s *server) sayIf(what string, err error) {
	if err != nil {
		s.say("%s: %v", what, err)
	}
}

func (s *server) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.log, "deadman: "+format+"\n", args...) // nobody else is there to be told
}
