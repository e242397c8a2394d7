package commands

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hapair/agent/api"
	"hapair/agent/api/apitest"
	"hapair/agent/apiv1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// screen is a writer a test can wait on.
type screen struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	wrote chan struct{} // one token: something new is there
}

func newScreen() *screen { return &screen{wrote: make(chan struct{}, 1)} }

// Write appends.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.wrote <- struct{}{}:
	default:
	}
	return s.buf.Write(p)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *screen) await(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(s.text(), want) {
		select {
		case <-s.wrote:
		case <-deadline:
			t.Fatalf("no %q on the screen:\n%q", want, s.text())
		}
	}
}

// serve runs the real server with a fake agent; stop ends it.
func serve(t *testing.T, sock string) (b *apitest.Backend, stop func()) {
	t.Helper()
	b = apitest.New(apitest.Sample(), time.Now)
	return b, serveBackend(t, sock, b)
}

// serveBackend runs the real server before b.
func serveBackend(t *testing.T, sock string, b api.Backend) (stop func()) {
	t.Helper()
	srv, err := api.New(api.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := api.Listen(sock, "")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(srv.Shutdown(ctx), <-done); err != nil {
			t.Error(err)
		}
	}
}

func terminal(out *screen, env map[string]string) Env {
	return Env{In: strings.NewReader(""), Out: out, Err: out, Terminal: true, Getenv: func(k string) string { return env[k] }}
}

// A watch on a terminal redraws at events, survives a restart of the agent, and
// gives the screen back.
func TestWatchOnTerminal(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	b, stop := serve(t, sock)
	out := newScreen()
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() { code <- Main(ctx, []string{"--socket", sock, "status", "-w"}, terminal(out, nil)) }()
	out.await(t, "\x1b[?1049h")
	out.await(t, "token 12")
	st := apitest.Sample()
	st.Resources[0].Token = 13
	b.SetStatus(st)
	b.Publish(apiv1.EventRole, "pg", "promoted", nil)
	out.await(t, "token 13")
	stop()
	out.await(t, "no agent answers")
	b, stop = serve(t, sock)
	defer stop()
	st.Resources[0].Token = 14
	b.SetStatus(st)
	out.await(t, "token 14")
	cancel()
	if c := <-code; c != ExitOK {
		t.Errorf("exit code %d", c)
	}
	if !strings.HasSuffix(out.text(), "\x1b[?25h\x1b[?1049l") {
		t.Error("the terminal is left in another state")
	}
}

// Colour is for terminals, and only when wanted there.
func TestColour(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	_, stop := serve(t, sock)
	defer stop()
	for _, c := range []struct {
		env      map[string]string
		terminal bool
		colour   bool
	}{
		{nil, true, true},
		{nil, false, false},
		{map[string]string{"NO_COLOR": "1"}, true, false},
		{map[string]string{"TERM": "dumb"}, true, false},
	} {
		out := newScreen()
		env := terminal(out, c.env)
		env.Terminal = c.terminal
		if code := Main(t.Context(), []string{"--socket", sock, "status"}, env); code != 0 {
			t.Errorf("exit code %d: %s", code, out.text())
		}
		if got := strings.Contains(out.text(), "\x1b["); got != c.colour {
			t.Errorf("%+v: colour %v", c, got)
		}
	}
}

// A forced promotion asks the person who is there, and takes no for an answer.
func TestForceAsks(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs uid 0: changes are for root")
	}
	sock := filepath.Join(t.TempDir(), "s")
	b, stop := serve(t, sock)
	defer stop()
	b.SetExplanation(apiv1.Explanation{Resource: "pg", Node: "alpha", Verdict: apiv1.NeedsForce, WouldLose: []string{"the last hour"}})
	for _, c := range []struct {
		answer string
		code   int
		asked  int
	}{{"no\n", ExitRefused, 0}, {"", ExitFailed, 0}, {"pg\n", ExitOK, 1}} {
		out := newScreen()
		env := terminal(out, nil)
		env.In, env.InTerminal = strings.NewReader(c.answer), true
		code := Main(t.Context(), []string{"--socket", sock, "promote", "pg", "--force"}, env)
		if code != c.code || len(b.Asked()) != c.asked || !strings.Contains(out.text(), "the last hour") {
			t.Errorf("answer %q: exit code %d, asked %q\n%s", c.answer, code, b.Asked(), out.text())
		}
	}
}
