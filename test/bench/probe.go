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
	// askedMax of them may wait for their answer at once, the rest for a connection.
	// More would queue before a service that is only slow for as long as each of them
	// is patient, and none be answered in time.
	askedMax = 8
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
	slots, asked := make(chan struct{}, probesMax), make(chan struct{}, askedMax)
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
			if ask(ctx, address, n, asked) == nil {
				answered <- time.Now()
			}
		})
	}
	probes.Wait()
	close(answered)
	all.Wait()
	return nil
}

var errEnough = errors.New("enough probes wait for their answers")

func ask(ctx context.Context, address string, n uint64, asked chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the answer is there, or why not
	select {
	case asked <- struct{}{}:
		defer func() { <-asked }()
	default:
		return errEnough
	}
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

// outage is the longest time without an answer, and the instant of the answer that
// ended it.
type outage struct {
	wait time.Duration
	end  time.Time
}

// outageSince waits for an outage to be over that came between two instants, the
// second of which may be yet to come.
func (p *probe) outageSince(ctx context.Context, began, came time.Time) (outage, error) {
	ctx, cancel := context.WithTimeout(ctx, outageMax)
	defer cancel()
	for {
		p.mu.Lock()
		out, over := outageIn(p.mu.answers, began, came, time.Now())
		fresh := p.mu.fresh
		p.mu.Unlock()
		if over {
			return out, nil
		}
		select {
		case <-fresh:
		case <-p.done:
			return outage{}, errors.New("the client ended")
		case <-ctx.Done():
			return outage{}, fmt.Errorf("the client is not served again within %s", outageMax)
		}
	}
}

// outageIn is the longest gap between answers that reaches past began, and
// whether answers have come steadily for a while after it, and after the
// instant by which the outage had come.
func outageIn(answers []time.Time, began, came, now time.Time) (longest outage, over bool) {
	first := len(answers)
	for first > 0 && answers[first-1].After(began) {
		first--
	}
	for i := max(first, 1); i < len(answers); i++ {
		if gap := answers[i].Sub(answers[i-1]); gap > longest.wait {
			longest = outage{gap, answers[i]}
		}
	}
	if longest.end.IsZero() {
		return longest, false
	}
	last := answers[len(answers)-1]
	return longest, last.Sub(longest.end) >= steady && last.Sub(came) >= steady && now.Sub(last) < steadyGap
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
