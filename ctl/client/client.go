// Package client speaks to haagent over its control socket.
package client

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
	"net/url"
	"strconv"
	"strings"
	"time"

	"hapair/agent/apiv1"
)

// Bounds of what is read from the agent.
const (
	maxAnswerBytes = 32 << 20
	maxEventBytes  = 1 << 20
)

// Client asks one agent. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// UnreachableError says that no agent answers on the socket.
type UnreachableError struct {
	Socket string
	Err    error
}

// Error names the socket and the cause.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no agent answers on %s: %v", e.Socket, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// UnansweredError says that the caller left before a change was answered: it may
// still complete.
type UnansweredError struct{ Err error }

// Error names the cause.
func (e *UnansweredError) Error() string { return "left before the answer: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *UnansweredError) Unwrap() error { return e.Err }

// New returns a client of the agent on a socket. Nothing is opened yet.
func New(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
			if err != nil {
				return nil, &UnreachableError{socket, err}
			}
			return conn, nil
		},
	}}
	return c
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for everything.
func (c *Client) Status(ctx context.Context) (apiv1.Status, error) {
	var st apiv1.Status
	return st, c.look(ctx, apiv1.PathStatus, &st)
}

// Version asks who answers.
func (c *Client) Version(ctx context.Context) (apiv1.Version, error) {
	var v apiv1.Version
	return v, c.look(ctx, apiv1.PathVersion, &v)
}

// Explain asks whether and why a resource can be promoted here.
func (c *Client) Explain(ctx context.Context, resource string) (apiv1.Explanation, error) {
	var e apiv1.Explanation
	return e, c.look(ctx, resourcePath(resource, apiv1.VerbExplain), &e)
}

// Timeline asks for the story of all nodes.
func (c *Client) Timeline(ctx context.Context, q apiv1.TimelineQuery) (apiv1.Timeline, error) {
	v := url.Values{}
	for name, text := range map[string]string{"resource": q.Resource, "node": q.Node} {
		if text != "" {
			v.Set(name, text)
		}
	}
	for name, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			v.Set(name, at.Format(time.RFC3339Nano))
		}
	}
	var t apiv1.Timeline
	return t, c.look(ctx, apiv1.PathTimeline+"?"+v.Encode(), &t)
}

// lookTimeout bounds a question that changes nothing: the agent answers those
// from memory, and one that does not hangs.
const lookTimeout = 5 * time.Second

func (c *Client) look(ctx context.Context, path string, ans any) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err := c.do(ctx, http.MethodGet, path, nil, ans)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the agent on %s does not answer within %v; is it stopped or overloaded? %w", c.socket, lookTimeout, err)
	}
	return err
}

// Change asks for a change of a resource: one of apiv1's verbs and its request.
func (c *Client) Change(ctx context.Context, resource, verb string, req any) (apiv1.Changed, error) {
	return c.change(ctx, resourcePath(resource, verb), req)
}

// Drill rehearses a failure, or asks what that would do.
func (c *Client) Drill(ctx context.Context, resource string, req apiv1.DrillRequest) (apiv1.DrillReport, error) {
	var rep apiv1.DrillReport
	return rep, c.do(ctx, http.MethodPost, resourcePath(resource, apiv1.VerbDrill), req, &rep)
}

// CreateMetadata asks the agent to write metadata.
func (c *Client) CreateMetadata(ctx context.Context, resource string, req apiv1.CreateMetadataRequest) (apiv1.CreatedMetadata, error) {
	var m apiv1.CreatedMetadata
	return m, c.do(ctx, http.MethodPost, resourcePath(resource, apiv1.VerbCreateMetadata), req, &m)
}

// Maintenance switches automatic actions off or on.
func (c *Client) Maintenance(ctx context.Context, req apiv1.MaintenanceRequest) (apiv1.Changed, error) {
	return c.change(ctx, apiv1.PathMaintenance, req)
}

// LedgerBegin has a voter whose ledger was lost vote before it has met every other one.
func (c *Client) LedgerBegin(ctx context.Context, req apiv1.LedgerBeginRequest) (apiv1.Changed, error) {
	return c.change(ctx, apiv1.PathLedgerBegin, req)
}

// Replace has the machine of another node refused for good.
func (c *Client) Replace(ctx context.Context, req apiv1.ReplaceRequest) (apiv1.Changed, error) {
	return c.change(ctx, apiv1.PathReplace, req)
}

// ConfigApply has the agent read its configuration again.
func (c *Client) ConfigApply(ctx context.Context, req apiv1.ConfigApplyRequest) (apiv1.Changed, error) {
	return c.change(ctx, apiv1.PathConfigApply, req)
}

// Standby marks a node as not to be promoted.
func (c *Client) Standby(ctx context.Context, req apiv1.StandbyRequest) (apiv1.Changed, error) {
	return c.change(ctx, apiv1.PathStandby, req)
}

// Fence has a node switched off.
func (c *Client) Fence(ctx context.Context, req apiv1.FenceRequest) (apiv1.Changed, error) {
	return c.change(ctx, apiv1.PathFence, req)
}

// FenceConfirm gives an operator's word that a node is off.
func (c *Client) FenceConfirm(ctx context.Context, req apiv1.FenceConfirmRequest) (apiv1.Changed, error) {
	return c.change(ctx, apiv1.PathFenceConfirm, req)
}

func (c *Client) change(ctx context.Context, path string, req any) (apiv1.Changed, error) {
	var ch apiv1.Changed
	return ch, c.do(ctx, http.MethodPost, path, req, &ch)
}

func resourcePath(resource, verb string) string {
	return apiv1.PathResources + url.PathEscape(resource) + "/" + verb
}

// do sends one request. A refusal is an *apiv1.Problem; no agent is an
// *UnreachableError; a change whose ctx ended before its answer came is an
// *UnansweredError.
func (c *Client) do(ctx context.Context, method, path string, req, ans any) error {
	err := c.exchange(ctx, method, path, req, ans)
	var refused *apiv1.Problem
	var gone *UnreachableError
	if err == nil || method == http.MethodGet || ctx.Err() == nil || errors.As(err, &refused) || errors.As(err, &gone) {
		return err
	}
	return &UnansweredError{err}
}

func (c *Client) exchange(ctx context.Context, method, path string, req, ans any) error {
	resp, err := c.send(ctx, method, path, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end or given up
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("read the agent's answer to %s %s: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return problemOf(resp.StatusCode, data)
	}
	if err := json.Unmarshal(data, ans); err != nil {
		return fmt.Errorf("understand the agent's answer to %s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, req any) (*http.Response, error) {
	var body io.Reader
	if req != nil {
		data, err := json.Marshal(req)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://haagent"+path, body)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		var gone *UnreachableError
		if errors.As(err, &gone) {
			return nil, gone
		}
		return nil, fmt.Errorf("ask the agent on %s: %w", c.socket, err)
	}
	return resp, nil
}

func problemOf(code int, data []byte) error {
	var e apiv1.ErrorBody
	if err := json.Unmarshal(data, &e); err != nil || e.Error.Code == "" {
		return fmt.Errorf("the agent answered %d without a reason", code)
	}
	return &e.Error
}

// Since values for Events.
const (
	SinceNow = "now"
	SinceAll = "0"
)

// Events calls each with every event after since (a number, SinceAll or
// SinceNow) until it returns an error, ctx ends, or the agent ends the stream;
// then the error says why. io.EOF means the agent went away without a word.
func (c *Client) Events(ctx context.Context, since string, each func(apiv1.Event) error) error {
	resp, err := c.send(ctx, http.MethodGet, apiv1.PathEvents+"?since="+url.QueryEscape(since), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // a stream is ended by closing it
	if resp.StatusCode != http.StatusOK {
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxEventBytes))
		if err != nil {
			return fmt.Errorf("read the agent's refusal: %w", err)
		}
		return problemOf(resp.StatusCode, data)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEventBytes)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if err := dispatch([]byte(data), each); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return io.EOF
}

// dispatch hands over one event, or returns the problem that ends the stream.
func dispatch(data []byte, each func(apiv1.Event) error) error {
	var line struct {
		apiv1.Event
		Error *apiv1.Problem `json:"error"`
	}
	if err := json.Unmarshal(data, &line); err != nil {
		return fmt.Errorf("understand event %s: %w", strconv.Quote(string(data[:min(len(data), 80)])), err)
	}
	if line.Error != nil {
		return line.Error
	}
	return each(line.Event)
}
