package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// fakeOutlets switch nodes that are nothing but words.
type fakeOutlets struct {
	mu sync.Mutex
	on map[string]bool
}

func (o *fakeOutlets) Nodes(context.Context) ([]string, error) { return []string{"alpha", "beta"}, nil }

func (o *fakeOutlets) Ready(context.Context, string) error { return nil }

func (o *fakeOutlets) Power(_ context.Context, node string) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	on, known := o.on[node]
	if !known {
		return false, fmt.Errorf("%w %s", ErrNoNode, node)
	}
	return on, nil
}

func (o *fakeOutlets) Off(_ context.Context, node string) error { return o.set(node, false) }

func (o *fakeOutlets) On(_ context.Context, node string) error { return o.set(node, true) }

func (o *fakeOutlets) set(node string, on bool) error {
	if _, err := o.Power(context.Background(), node); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.on[node] = on
	return nil
}

// The lab's fence agent switches what boards stand for, with the exit codes of fence
// agents: for a login that is refused and for boards that do not answer, too.
func TestFenceByBoards(t *testing.T) {
	o := &fakeOutlets{on: map[string]bool{"alpha": true}}
	right := httptest.NewServer(Boards(o, "secret"))
	defer right.Close()
	hung := make(chan struct{})
	mute := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung }))
	defer mute.Close()
	defer close(hung)
	for _, c := range []struct {
		at                     *httptest.Server
		action, plug, password string
		said                   string
		code                   int
		why                    string
	}{
		{right, "monitor", "alpha", "secret", "", 0, ""},
		{right, "list", "", "secret", "alpha,\nbeta,\n", 0, ""},
		{right, "status", "alpha", "secret", "Status: ON\n", 0, ""},
		{right, "off", "alpha", "guess", "", 3, "login denied"},
		{right, "status", "alpha", "guess", "", 3, "login denied"},
		{right, "off", "gamma", "secret", "", 1, "no node gamma"},
		{right, "off", "", "secret", "", 1, "no node"},
		{mute, "off", "alpha", "secret", "", 5, "deadline exceeded"},
		{mute, "monitor", "alpha", "secret", "", 5, "deadline exceeded"},
		{right, "status", "alpha", "secret", "Status: ON\n", 0, ""}, // none of them has switched it
		{right, "off", "alpha", "secret", "", 0, ""},
		{right, "status", "alpha", "secret", "Status: OFF\n", 2, ""},
		{right, "off", "alpha", "secret", "", 0, ""}, // again
		{right, "on", "alpha", "secret", "", 0, ""},
		{right, "status", "alpha", "secret", "Status: ON\n", 0, ""},
	} {
		ip, port, err := net.SplitHostPort(c.at.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in := fmt.Sprintf("action=%s\nplug=%s\nip=%s\nipport=%s\npassword=%s\npower_timeout=1\n", c.action, c.plug, ip, port, c.password)
		var said, log strings.Builder
		code := FenceAgent(t.Context(), strings.NewReader(in), &said, &log)
		if code != c.code || said.String() != c.said || !strings.Contains(log.String(), c.why) || strings.Contains(log.String(), c.password) {
			t.Errorf("%s %q: %q, exit code %d: %s", c.action, c.plug, said.String(), code, log.String())
		}
	}
}
