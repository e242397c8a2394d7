package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"hapair/test/lab"
)

// A probe is one connection, one record, one answer. Probes overlap, so that
// one that is lost hides no answer to a later one.
const (
	probeInterval = 4 * time.Millisecond
	probeTimeout  = 400 * time.Millisecond
	probesMax     = 200 // at once
)

// probeCommand is what runs on the client: it prints when each probe was
// answered, in nanoseconds since 1970.
func probeCommand() *cobra.Command {
	return &cobra.Command{Use: "probe ADDRESS", Hidden: true, Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		return probing(c.Context(), args[0], os.Stdout)
	}}
}

func probing(ctx context.Context, address string, out io.Writer) error {
	answered := make(chan time.Time, probesMax)
	slots := make(chan struct{}, probesMax)
	var all sync.WaitGroup
	all.Go(func() { // one writes; ends when answered is closed
		for at := range answered {
			fmt.Fprintln(out, at.UnixNano()) //nolint:errcheck // nobody listens any more: the probe is about to be ended
		}
	})
	var probes sync.WaitGroup
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for n := uint64(1); ctx.Err() == nil; n++ {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		probes.Go(func() { // ends after probeTimeout at the latest
			defer func() { <-slots }()
			if ask(ctx, address, n) == nil {
				answered <- time.Now()
			}
		})
	}
	probes.Wait()
	close(answered)
	all.Wait()
	return nil
}

func ask(ctx context.Context, address string, n uint64) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the answer is there, or why not
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "put %d\n", n); err != nil {
		return err
	}
	_, err = bufio.NewReader(c).ReadString('\n')
	return err
}

// probe is the other end: it reads what the client prints.
type probe struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the client has ended

	mu struct {
		sync.Mutex
		answers []time.Time
		fresh   chan struct{} // closed at the next answer
	}
}

func startProbe(l *lab.Lab, address string) (*probe, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &probe{cmd: exec.Command(self, "failover", "probe", address), done: make(chan struct{})}
	p.mu.fresh = make(chan struct{})
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.Enter(lab.Client, p.cmd); err != nil {
		return nil, err
	}
	go p.read(out)
	return p, nil
}

// read ends with the client.
func (p *probe) read(out io.Reader) {
	defer close(p.done)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		ns, err := strconv.ParseInt(strings.TrimSpace(lines.Text()), 10, 64)
		if err != nil {
			continue
		}
		p.mu.Lock()
		p.mu.answers = append(p.mu.answers, time.Unix(0, ns))
		close(p.mu.fresh)
		p.mu.fresh = make(chan struct{})
		p.mu.Unlock()
	}
}

// steady is how long answers must have come without a gap before an outage
// counts as over, and steadyGap what is no gap.
const (
	steady    = time.Second
	steadyGap = 250 * time.Millisecond
)

// served waits until the client has answers: what comes before the first one
// cannot be seen.
func (p *probe) served(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleMax)
	defer cancel()
	for {
		p.mu.Lock()
		n, fresh := len(p.mu.answers), p.mu.fresh
		lately := n > 1 && time.Since(p.mu.answers[n-1]) < servedLately
		p.mu.Unlock()
		if lately {
			return nil
		}
		select {
		case <-fresh:
		case <-p.done:
			return errors.New("the client ended")
		case <-ctx.Done():
			return fmt.Errorf("the client is not served within %s", settleMax)
		}
	}
}

const servedLately = 20 * time.Millisecond

// gapSince waits for an outage that came between an instant and now to be over,
// and returns the longest time between two answers.
func (p *probe) gapSince(ctx context.Context, began time.Time) (time.Duration, error) {
	came := time.Now()
	ctx, cancel := context.WithTimeout(ctx, outageMax)
	defer cancel()
	for {
		p.mu.Lock()
		longest, over := outageIn(p.mu.answers, began, came, time.Now())
		fresh := p.mu.fresh
		p.mu.Unlock()
		if over {
			return longest, nil
		}
		select {
		case <-fresh:
		case <-p.done:
			return 0, errors.New("the client ended")
		case <-ctx.Done():
			return 0, fmt.Errorf("the client is not served again within %s", outageMax)
		}
	}
}

// outageIn is the longest gap between answers that reaches past began, and
// whether answers have come steadily for a while after it, and after the
// instant by which the outage had come.
func outageIn(answers []time.Time, began, came, now time.Time) (longest time.Duration, over bool) {
	var end time.Time
	first := len(answers)
	for first > 0 && answers[first-1].After(began) {
		first--
	}
	for i := max(first, 1); i < len(answers); i++ {
		if gap := answers[i].Sub(answers[i-1]); gap > longest {
			longest, end = gap, answers[i]
		}
	}
	if end.IsZero() {
		return longest, false
	}
	last := answers[len(answers)-1]
	return longest, last.Sub(end) >= steady && last.Sub(came) >= steady && now.Sub(last) < steadyGap
}

func (p *probe) stop() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	var killed *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &killed) {
		return err
	}
	return nil
}
