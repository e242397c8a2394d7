package program

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childVariable has the test's program be an agent that runs the line in it.
const childVariable = "HAPAIR_TEST_PROGRAM"

func TestMain(m *testing.M) {
	line := os.Getenv(childVariable)
	if line == "" {
		os.Exit(m.Run())
	}
	c := shell(line)
	c.Tied = true
	_, _ = Run(context.Background(), c) // it is killed meanwhile
	os.Exit(1)
}

// A program that is tied ends with the process that runs it, which is killed.
func TestTied(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), childVariable+"=echo $$ > "+pidfile+"; exec sleep 60")
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := awaitPid(t, pidfile)
	defer unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it is gone, unless this test fails
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	agent.Wait() //nolint:errcheck // killed
	for over := time.Now().Add(5 * time.Second); !gone(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(over) {
			t.Fatalf("pid %d lives on", pid)
		}
	}
}

func awaitPid(t *testing.T, file string) int {
	t.Helper()
	for over := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(file)
		if text, whole := strings.CutSuffix(string(b), "\n"); err == nil && whole {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
		if time.Now().After(over) {
			t.Fatalf("it does not start: %v", err)
		}
	}
}

// gone reports whether a process is no more, but for whoever has not buried it yet.
func gone(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(state, "Z")
}

// What ends in a process that lives are its threads, and a program that is tied does not
// end with the one that has started it. Nobody waits for the program meanwhile: by chance
// that would be the same thread, which then does not end.
func TestTiedToTheProcess(t *testing.T) {
	defer holdMain()()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := throughShell(shell("read word < " + fifo + "; exit 5").Argv)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	waited := make(chan struct{})
	defer close(waited)
	if err := startTied(cmd, nil, waited); err != nil {
		t.Fatal(err)
	}
	word, err := os.OpenFile(fifo, os.O_RDWR, 0) // waits for nobody
	if err != nil {
		t.Fatal(err)
	}
	defer word.Close() //nolint:errcheck // a test's
	endThreads(50)
	if _, err := word.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Errorf("it ended by %v", err)
	}
}

// holdMain keeps goroutines off the process's first thread, which never ends.
func holdMain() (release func()) {
	const most = 100 // then it is held elsewhere
	tids, all := make(chan int), make(chan struct{})
	for range most {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			tids <- unix.Gettid()
			<-all
		}()
		if <-tids == os.Getpid() {
			break
		}
	}
	return func() { close(all) }
}

// endThreads has the runtime end that many of its threads, at least: all that were idle.
func endThreads(n int) {
	done, all := make(chan struct{}), make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			done <- struct{}{}
			<-all
		}()
	}
	for range n {
		<-done
	}
	most := threads()
	close(all)
	for over := time.Now().Add(time.Second); threads() > most-n+1 && time.Now().Before(over); time.Sleep(time.Millisecond) {
	}
}

func threads() int {
	all, _ := os.ReadDir("/proc/self/task")
	return len(all)
}
