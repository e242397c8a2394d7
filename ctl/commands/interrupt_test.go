package commands

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hapair/agent/api/apitest"
	"hapair/agent/apiv1"
)

// waiter is an agent whose switchover lasts until the caller leaves.
type waiter struct {
	*apitest.Backend
	asked chan struct{}
}

// Switchover says that it was asked for, and waits.
func (w *waiter) Switchover(ctx context.Context, _ string, _ apiv1.SwitchoverRequest) (apiv1.Changed, error) {
	close(w.asked)
	<-ctx.Done()
	return apiv1.Changed{}, ctx.Err()
}

// interruptible is a context that ends as that of main does, and what ends it.
func interruptible(t *testing.T) (ctx context.Context, interrupt func()) {
	t.Helper()
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGUSR1)
	t.Cleanup(stop)
	return ctx, func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Error(err)
		}
	}
}

// start runs hactl; ended gives its exit code.
func start(ctx context.Context, env Env, args ...string) (ended <-chan int) {
	code := make(chan int, 1)
	go func() { code <- Main(ctx, args, env) }()
	return code
}

func wantCode(t *testing.T, ended <-chan int, want int, out *screen) {
	t.Helper()
	select {
	case code := <-ended:
		if code != want {
			t.Errorf("exit code %d, want %d\n%s", code, want, out.text())
		}
	case <-time.After(20 * time.Second):
		t.Errorf("hactl does not end\n%s", out.text())
	}
}

// Who interrupts a change must not read from the exit code that it is done.
func TestInterruptedChange(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs uid 0: changes are for root")
	}
	sock := filepath.Join(t.TempDir(), "s")
	w := &waiter{apitest.New(apitest.Sample(), time.Now), make(chan struct{})}
	defer serveBackend(t, sock, w)()
	ctx, interrupt := interruptible(t)
	out := newScreen()
	ended := start(ctx, terminal(out, nil), "--socket", sock, "switchover", "pg")
	<-w.asked
	interrupt()
	wantCode(t, ended, ExitTimeout, out)
	if text := out.text(); !strings.Contains(text, "interrupted") || !strings.Contains(text, "may still complete") {
		t.Errorf("it says only %q", text)
	}
}

// A list that was cut short is none.
func TestInterruptedLook(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	_, stop := serve(t, sock)
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"status"}, {"events", "--no-follow"}} {
		out := newScreen()
		wantCode(t, start(ctx, terminal(out, nil), append([]string{"--socket", sock}, args...)...), ExitTimeout, out)
		if text := out.text(); !strings.Contains(text, "interrupted") || strings.Contains(text, "complete") {
			t.Errorf("%q: it says %q", args, text)
		}
	}
}

// What follows until the user ends it has done what it was asked for.
func TestInterruptedFollowing(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	b, stop := serve(t, sock)
	defer stop()
	ctx, interrupt := interruptible(t)
	out := newScreen()
	ended := start(ctx, terminal(out, nil), "--socket", sock, "events")
	b.Publish(apiv1.EventRole, "pg", "promoted", nil)
	out.await(t, "promoted")
	interrupt()
	wantCode(t, ended, ExitOK, out)
}

// An interrupt ends a question as well; nothing is asked of the agent then.
func TestInterruptedQuestion(t *testing.T) {
	for _, c := range []struct{ question, command string }{
		{"Type the node's name", "fence beta --force"},
		{"Type the resource's name", "promote pg --force"},
		{"Type the resource's name", "drill agent pg"},
	} {
		t.Run(c.command, func(t *testing.T) { interruptQuestion(t, c.question, strings.Fields(c.command)) })
	}
}

func interruptQuestion(t *testing.T, question string, args []string) {
	if os.Getuid() != 0 {
		t.Skip("needs uid 0: changes are for root")
	}
	sock := filepath.Join(t.TempDir(), "s")
	b, stop := serve(t, sock)
	defer stop()
	b.SetExplanation(apiv1.Explanation{Resource: "pg", Node: "alpha", Verdict: apiv1.NeedsForce})
	ctx, interrupt := interruptible(t)
	out := newScreen()
	env := terminal(out, nil)
	keys, typed := io.Pipe()
	defer typed.Close() //nolint:errcheck // it gives none
	env.In, env.InTerminal = keys, true
	ended := start(ctx, env, append([]string{"--socket", sock}, args...)...)
	out.await(t, question)
	asked := len(b.Asked())
	interrupt()
	wantCode(t, ended, ExitTimeout, out)
	if text := out.text(); !strings.Contains(text, "interrupted; nothing was") || len(b.Asked()) != asked {
		t.Errorf("it says %q, and asked %q", text, b.Asked())
	}
}
