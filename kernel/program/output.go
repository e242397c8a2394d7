package program

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// output collects what a command prints without tying the processes it leaves
// behind to the agent: the pipe's end they inherit reads as well as writes, so
// that it never lacks a reader (no SIGPIPE), and does not block, so that it
// never fills up on them.
type output struct {
	child *os.File // for the command
	keep  int      // the same open file, to make it non-blocking
	read  *os.File
	done  chan struct{} // closed when drain has returned
	max   int           // bytes kept

	mu sync.Mutex
	b  []byte // the last max bytes; guarded by mu
}

func newOutput(bytesMax int) (*output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe for output: %w", err)
	}
	defer w.Close() //nolint:errcheck // the command has its own copy
	keep, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = r.Close() // nothing was written
		return nil, fmt.Errorf("open the pipe for output: %w", err)
	}
	dup, err := unix.FcntlInt(uintptr(keep), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		_, _ = r.Close(), unix.Close(keep) // nothing was written
		return nil, fmt.Errorf("duplicate the pipe for output: %w", err)
	}
	return &output{child: os.NewFile(uintptr(dup), "output"), keep: keep, read: r, done: make(chan struct{}), max: bytesMax}, nil
}

// drain collects in the background until finish.
func (o *output) drain() {
	go func() {
		defer close(o.done)
		buf := make([]byte, 4096)
		for {
			n, err := o.read.Read(buf)
			o.add(buf[:n])
			if err != nil {
				return
			}
		}
	}()
}

// finish takes what is left in the pipe, ends the drain and closes everything.
// It is called once the command has ended.
func (o *output) finish() {
	defer o.close()
	err := unix.SetNonblock(o.keep, true)
	if err == nil {
		err = o.read.SetReadDeadline(time.Now())
	}
	if err != nil {
		_ = o.read.Close() // ends the drain as well; the last words are lost
		<-o.done
		return
	}
	<-o.done
	o.rest()
}

// rest reads, without waiting, what was still in the pipe at the deadline. A
// process left behind may go on printing: there is a limit.
func (o *output) rest() {
	raw, err := o.read.SyscallConn()
	if err == nil {
		err = o.read.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return // cannot be read any more: the last words are lost
	}
	buf := make([]byte, 4096)
	_ = raw.Read(func(fd uintptr) bool { // as above
		for range (1 << 20) / len(buf) {
			n, err := unix.Read(int(fd), buf)
			if err != nil || n <= 0 {
				break
			}
			o.add(buf[:n])
		}
		return true
	})
}

func (o *output) add(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, b...)
	if over := len(o.b) - o.max; over > 0 {
		o.b = append(o.b[:0], o.b[over:]...)
	}
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.b)
}

func (o *output) close() {
	_ = o.child.Close()    // nothing is buffered in any of them
	_ = o.read.Close()     //
	_ = unix.Close(o.keep) //
}
