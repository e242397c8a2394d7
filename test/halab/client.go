package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"hapair/test/lab"
	"hapair/test/lab/record"
)

// client is a writer that runs on the lab's client machine, and what it was
// answered so far.
type client struct {
	cmd   *exec.Cmd
	fresh chan record.Ack // the newest answer, at most one
	done  chan struct{}   // closed when the writer's output ended

	mu   sync.Mutex
	acks []record.Ack
	last string // the last line that was no answer: the reckoning
}

// startClient starts a writer on the client machine.
func startClient(l *lab.Lab, first uint64) (*client, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &client{
		cmd:   exec.Command(self, "writer", "--first", fmt.Sprint(first), "--address", fmt.Sprintf("%s:%d", lab.ServiceAddress, record.DefaultPort)),
		fresh: make(chan record.Ack, 1), done: make(chan struct{}),
	}
	// A pipe of our own: Wait must not close it before it is read to its end.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stdout, c.cmd.Stderr = w, os.Stderr
	err = errors.Join(l.Enter(lab.Client, c.cmd), w.Close())
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	go c.read(r)
	return c, nil
}

// read follows the writer's output until its end.
func (c *client) read(r io.ReadCloser) {
	defer close(c.done)
	defer r.Close() //nolint:errcheck // it was read to its end
	record.Follow(r, c.take, func(line string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.last = line
	})
}

func (c *client) take(ack record.Ack) {
	c.mu.Lock()
	c.acks = append(c.acks, ack)
	c.mu.Unlock()
	select { // the newest replaces one that nobody took
	case <-c.fresh:
	default:
	}
	c.fresh <- ack
}

// await waits for an answer given after an instant, and returns the first one.
func (c *client) await(ctx context.Context, after time.Time, within time.Duration) (record.Ack, error) {
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	for {
		select {
		case a := <-c.fresh:
			if a.At.After(after) {
				return c.firstAfter(after), nil
			}
		case <-c.done:
			return record.Ack{}, errors.New("the writer ended")
		case <-timeout.C:
			return record.Ack{}, fmt.Errorf("no record was accepted in %s", within)
		case <-ctx.Done():
			return record.Ack{}, ctx.Err()
		}
	}
}

func (c *client) firstAfter(t time.Time) record.Ack {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.acks {
		if a.At.After(t) {
			return a
		}
	}
	return record.Ack{}
}

// gap is the longest time without an answer.
func (c *client) gap() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, _ := (&record.Writer{Acks: c.acks}).Gap()
	return d
}

// median is the usual time from one answer to the next.
func (c *client) median() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []time.Duration
	for i := 1; i < len(c.acks); i++ {
		all = append(all, c.acks[i].At.Sub(c.acks[i-1].At))
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func (c *client) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acks)
}

// stop interrupts the writer and returns its reckoning; the error is of a
// record that was answered and lost, or of a service that does not answer.
func (c *client) stop() (string, error) {
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return "", err
	}
	err := c.cmd.Wait()
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && !strings.Contains(c.last, "missing 0,") {
		err = fmt.Errorf("the writer ended with %q", c.last)
	}
	return c.last, err
}
