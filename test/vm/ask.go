package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"hapair/test/vm/spec"
)

// request asks the guest. What it refuses is an error.
func (m *machine) request(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+m.control+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err == nil && resp.StatusCode == http.StatusConflict && !strings.HasPrefix(path, "/api/") {
		text, rerr := io.ReadAll(resp.Body)
		err = errors.Join(fmt.Errorf("%s: %s", m.name, bytes.TrimSpace(text)), rerr, resp.Body.Close())
	}
	return resp, err
}

// do asks the guest for something that has no answer.
func (m *machine) do(ctx context.Context, path string, body []byte) error {
	resp, err := m.request(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// run runs a command in the machine.
func (m *machine) run(ctx context.Context, argv ...string) (string, error) {
	body, err := json.Marshal(argv)
	if err != nil {
		return "", err
	}
	resp, err := m.request(ctx, http.MethodPost, "/exec", body)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("%s: %q: %w", m.name, argv, err)
	}
	out, ended, _ := strings.Cut(string(text), "\n"+spec.Ended)
	if ended != "ok\n" {
		return out, fmt.Errorf("%s: %q: %s: %s", m.name, argv, strings.TrimSpace(ended), out)
	}
	return out, nil
}

// tail is the end of a file.
func tail(file string) string {
	const last = 2000
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-last):])
}
