package program

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func shell(line string) Command {
	return Command{Argv: []string{"/bin/sh", "-c", line}, Env: Environment()}
}

func TestInputAndOutput(t *testing.T) {
	c := shell("echo error >&2; cat; exit 3")
	c.Input, c.ApartMax = []byte("secret=x\n"), 100
	end, err := Run(t.Context(), c)
	if err != nil || end.Code != 3 || string(end.Apart) != "secret=x\n" || end.Output != "error" {
		t.Errorf("%v: %+v", err, end)
	}
	c.ApartMax = 0
	if end, err = Run(t.Context(), c); err != nil || end.Output != "error secret=x" {
		t.Errorf("%v: %+v", err, end)
	}
}

// What is to be hidden is not in what is kept, whole or in part.
func TestHide(t *testing.T) {
	c := shell(`read secret; echo "login with $secret"; echo "denied: $secret" >&2`)
	c.Input, c.ApartMax, c.Hide = []byte("two  words\n"), 1000, []string{"", "two  words"}
	end, err := Run(t.Context(), c)
	if err != nil || string(end.Apart) != "login with ***\n" || end.Output != "denied: ***" {
		t.Errorf("%v: %+v", err, end)
	}
	long := append([]byte("swordfish\n"), bytes.Repeat([]byte("x"), keptMax)...)
	if got := hide(long[4:], keptMax, []string{"swordfish"}); bytes.Contains(got, []byte("fish")) {
		t.Errorf("half of it is left: %.20q", got)
	}
}

// A program that does not read its input is not waited for, and one that reads
// where there is none finds the end.
func TestInputUnread(t *testing.T) {
	c := shell("exit 0")
	c.Input = bytes.Repeat([]byte("x"), InputMax)
	if end, err := Run(t.Context(), c); err != nil || end.Code != 0 {
		t.Errorf("%v: %+v", err, end)
	}
	c.Input = append(c.Input, 'x')
	if _, err := Run(t.Context(), c); err == nil {
		t.Error("too much input is accepted")
	}
	if end, err := Run(t.Context(), shell("cat")); err != nil || end.Code != 0 {
		t.Errorf("%v: %+v", err, end)
	}
}

func TestSignal(t *testing.T) {
	if end, err := Run(t.Context(), shell("kill -9 $$")); err != nil || end.Code != -1 || end.Signal != "killed" {
		t.Errorf("%v: %+v", err, end)
	}
}

// What is kept is bounded, and is the end.
func TestBounded(t *testing.T) {
	c := shell("head -c 300000 /dev/zero | tr '\\0' x >&2; echo end >&2; head -c 300000 /dev/zero; echo last")
	c.ApartMax = 5000
	end, err := Run(t.Context(), c)
	if err != nil || len(end.Output) > 2100 || !strings.HasSuffix(end.Output, "end") || len(end.Apart) != 5000 || !bytes.HasSuffix(end.Apart, []byte("last\n")) {
		t.Errorf("%v: %d and %d bytes", err, len(end.Output), len(end.Apart))
	}
}

// Time runs out for everything that the program started.
func TestTimeOut(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	why := errors.New("time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		for {
			if b, err := os.ReadFile(pidfile); err == nil && bytes.HasSuffix(b, []byte("\n")) {
				cancel(why)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	end, err := Run(ctx, shell("trap '' TERM; sleep 1000 & echo $! > "+pidfile+"; wait; sleep 1000"))
	if !errors.Is(err, why) || end.Code != -1 || end.Took < Settle {
		t.Fatalf("%v: %+v", err, end)
	}
	b, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); !errors.Is(unix.Kill(pid, 0), unix.ESRCH); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("pid %d lives on", pid)
		}
	}
}

// What a program leaves behind neither holds up its end nor is held up.
func TestLeftBehind(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	begin := time.Now()
	if _, err := Run(t.Context(), shell("(while :; do echo chatter; sleep 0.01; done) & echo $! > "+pidfile)); err != nil || time.Since(begin) > 5*time.Second {
		t.Fatalf("%v after %s", err, time.Since(begin))
	}
	b, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("it did not live on: %v", err)
	}
}

func TestNotBegun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mark := filepath.Join(t.TempDir(), "mark")
	if _, err := Run(ctx, shell("touch "+mark)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("it ran although time was over")
	}
}

func TestTail(t *testing.T) {
	for in, want := range map[string]string{" a\n b\xff ": "a b?", "one two three": "… three"} {
		if got := Tail([]byte(in), 5); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := Tail([]byte("0123456789ä"), 3); !strings.HasSuffix(got, "9ä") {
		t.Errorf("%q", got)
	}
}

// What the agent is to the kernel when memory is short is not inherited.
func TestMayBeEndedWhenMemoryIsShort(t *testing.T) {
	const own = "/proc/self/oom_score_adj"
	was, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, []byte("500"), 0); err != nil { // -1000 as the agent's takes a capability
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(own, was, 0); err != nil {
			t.Error(err)
		}
	}()
	if end, err := Run(t.Context(), shell("cat "+own)); err != nil || end.Output != "0" {
		t.Errorf("%v: %+v", err, end)
	}
}
