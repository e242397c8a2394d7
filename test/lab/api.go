package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"hapair/agent/apiv1"
)

const (
	apiTimeout    = 20 * time.Second
	answerBytes   = 4 << 20 // the longest answer read
	readyInterval = 20 * time.Millisecond
)

// client speaks to a node's agent through the node's own file system.
func (l *Lab) client(name string) (*http.Client, error) {
	n, err := l.node(name)
	if err != nil {
		return nil, err
	}
	if !n.Init.alive() {
		return nil, fmt.Errorf("lab: %s is off", name)
	}
	socket := filepath.Join(fmt.Sprintf("/proc/%d/root", n.Init.PID), Socket)
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // nothing stays behind when the lab goes down
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}, nil
}

// Call sends a request to a node's agent and reads the answer into out, unless
// nil. A refusal is an *apiv1.Problem.
func (l *Lab) Call(ctx context.Context, name, method, path string, in, out any) error {
	c, err := l.client(name)
	if err != nil {
		return err
	}
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+name+path, body)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("lab: ask %s: %w", name, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end or given up
	return Answer(name, resp, out)
}

// Answer reads what a node's agent has answered into out, unless nil. A refusal is
// an *apiv1.Problem. The body is the caller's to close.
func Answer(name string, resp *http.Response, out any) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if err != nil {
		return fmt.Errorf("lab: answer of %s: %w", name, err)
	}
	if resp.StatusCode/100 != 2 {
		var refused apiv1.ErrorBody
		if err := json.Unmarshal(text, &refused); err != nil || refused.Error.Code == "" {
			return fmt.Errorf("lab: %s answers %s: %s", name, resp.Status, text)
		}
		return fmt.Errorf("lab: %s: %w", name, &refused.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("lab: answer of %s: %w", name, err)
	}
	return nil
}

// Status asks a node's agent.
func (l *Lab) Status(ctx context.Context, name string) (*apiv1.Status, error) {
	s := new(apiv1.Status)
	return s, l.Call(ctx, name, http.MethodGet, apiv1.PathStatus, nil, s)
}

// AwaitAPI waits until a node's agent answers.
func (l *Lab) AwaitAPI(ctx context.Context, name string) error {
	_, err := l.Await(ctx, name, apiTimeout, func(*apiv1.Status) bool { return true })
	return err
}

// Await asks a node's agent again and again until its status is as wanted, and
// returns that status. It gives up early when the agent is dead.
func (l *Lab) Await(ctx context.Context, name string, within time.Duration, ok func(*apiv1.Status) bool) (*apiv1.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for {
		s, err := l.Status(ctx, name)
		if err == nil && ok(s) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			text, jerr := json.Marshal(s)
			return s, errors.Join(fmt.Errorf("lab: %s is not as awaited within %s; its status: %s", name, within, text), err, jerr)
		case <-tick.C:
		}
		if !l.AgentRuns(name) {
			return nil, errors.Join(fmt.Errorf("lab: the agent of %s ended", name), err)
		}
	}
}

// AwaitResource waits for the state of the lab's resource as a node sees it.
func (l *Lab) AwaitResource(ctx context.Context, name string, within time.Duration, ok func(*apiv1.Resource) bool) (*apiv1.Resource, error) {
	s, err := l.Await(ctx, name, within, func(s *apiv1.Status) bool {
		r := s.Resource(l.Resource())
		return r != nil && ok(r)
	})
	if err != nil {
		return nil, err
	}
	return s.Resource(l.Resource()), nil
}

// Verb asks a node's agent to change the lab's resource.
func (l *Lab) Verb(ctx context.Context, name, verb string, in, out any) error {
	return l.Call(ctx, name, http.MethodPost, apiv1.PathResources+l.Resource()+"/"+verb, in, out)
}

// Events returns the events a node kept after a number, oldest first. It reads
// until none arrives for a while.
func (l *Lab) Events(ctx context.Context, name string, since uint64) ([]apiv1.Event, error) {
	c, err := l.client(name)
	if err != nil {
		return nil, err
	}
	s, err := l.Status(ctx, name)
	if err != nil {
		return nil, err
	}
	if s.EventSeq <= since {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s%s?since=%d", name, apiv1.PathEvents, since), nil)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("lab: events of %s: %w", name, err)
	}
	defer resp.Body.Close() //nolint:errcheck // a stream is ended by closing it
	return readEvents(resp.Body, s.EventSeq)
}

// readEvents reads server-sent events up to a number.
func readEvents(r io.Reader, last uint64) ([]apiv1.Event, error) {
	var out []apiv1.Event
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, answerBytes)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		if !ok {
			continue
		}
		var e apiv1.Event
		if err := json.Unmarshal([]byte(strings.TrimSpace(data)), &e); err != nil {
			return out, fmt.Errorf("lab: event %q: %w", data, err)
		}
		out = append(out, e)
		if e.Seq >= last {
			return out, nil
		}
	}
	return out, lines.Err()
}
