package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"time"
)

// boardsClient asks Boards over HTTP. Each question has a connection of its own.
type boardsClient struct {
	base           string
	user, password string
	within         time.Duration // that an answer may take
}

// answerMax bounds an answer of the boards, in bytes.
const answerMax = 64 << 10

func newBoardsClient(ip, port, user, password string, within time.Duration) *boardsClient {
	return &boardsClient{base: "http://" + net.JoinHostPort(ip, port), user: user, password: password, within: within}
}

// ask sends in, if it is not nil, and reads the answer into out, if that is not nil.
func (c *boardsClient) ask(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, &body)
	if err != nil {
		return err
	}
	r.SetBasicAuth(c.user, c.password)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusUnauthorized:
		err = ErrLogin
	case resp.StatusCode == http.StatusNotFound:
		err = fmt.Errorf("%w: %s", ErrNoNode, bytes.TrimSpace(text))
	case resp.StatusCode >= http.StatusMultipleChoices:
		err = errors.New(resp.Status + ": " + string(bytes.TrimSpace(text)))
	case out != nil:
		err = json.Unmarshal(text, out)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, r.URL, err)
	}
	return nil
}

// Nodes implements Outlets.
func (c *boardsClient) Nodes(ctx context.Context) (names []string, err error) {
	var all struct {
		Members []map[string]string
	}
	err = c.ask(ctx, http.MethodGet, boardsRoot, nil, &all)
	for _, m := range all.Members {
		names = append(names, path.Base(m["@odata.id"]))
	}
	return names, err
}

// Ready implements Outlets.
func (c *boardsClient) Ready(ctx context.Context, node string) error {
	_, err := c.Power(ctx, node)
	return err
}

// Power implements Outlets.
func (c *boardsClient) Power(ctx context.Context, node string) (on bool, err error) {
	var board struct{ PowerState string }
	err = c.ask(ctx, http.MethodGet, boardsRoot+"/"+url.PathEscape(node), nil, &board)
	if err == nil && board.PowerState != boardIsOn && board.PowerState != boardIsOff {
		err = fmt.Errorf("the board of %s says that its power is %q", node, board.PowerState)
	}
	return board.PowerState == boardIsOn, err
}

// Off implements Outlets.
func (c *boardsClient) Off(ctx context.Context, node string) error {
	return c.reset(ctx, node, boardOff)
}

// On implements Outlets.
func (c *boardsClient) On(ctx context.Context, node string) error { return c.reset(ctx, node, boardOn) }

func (c *boardsClient) reset(ctx context.Context, node, kind string) error {
	return c.ask(ctx, http.MethodPost, boardsRoot+"/"+url.PathEscape(node)+boardsReset, map[string]string{"ResetType": kind}, nil)
}
