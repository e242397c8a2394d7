package killed

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hapair/mirror/front/fuse"
	"hapair/test/lab"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == childWord {
		if err := runChild(os.Args[2], os.Args[3]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Bounds, generous: they only end what hangs.
const (
	patience = 10 * time.Second
	tick     = 5 * time.Millisecond
)

// TestKilled: a process that is killed while it waits for its own device goes
// away, and so does all it started; the device and the mounts can be cleared.
func TestKilled(t *testing.T) {
	for _, c := range []struct {
		name  string
		waits []int // system calls: the victim or a child of its waits in one of them; nil: in none
		own   bool  // in a mount namespace of its own
	}{
		{"attach", []int{unix.SYS_IOCTL}, false},
		{"withdraw", []int{unix.SYS_FSYNC}, false},
		{"pages", nil, false},
		{"namespace", nil, true},
		{"detect", []int{unix.SYS_READ, unix.SYS_PREAD64}, false},
		{"check", []int{unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_FSYNC}, false},
		{"mount", []int{unix.SYS_MOUNT}, false},
		{"unmount", []int{unix.SYS_UMOUNT2}, false},
		{"resolve", []int{unix.SYS_OPENAT, unix.SYS_NEWFSTATAT, unix.SYS_READLINKAT}, false},
		{"monitor", []int{unix.SYS_OPENAT, unix.SYS_NEWFSTATAT, unix.SYS_READLINKAT}, false},
		{"find", []int{unix.SYS_FACCESSAT, unix.SYS_ACCESS}, false},
		{"exec", []int{unix.SYS_EXECVE}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := begin(t, c.name, c.own)
			if c.waits != nil {
				v.awaitWaiting(c.waits)
			}
			v.kill()
			v.clear()
		})
	}
}

// victim is a child from the outside.
type victim struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	gone chan struct{} // closed when it is
	fuse []string      // the numbers of its FUSE connections
}

// begin starts a victim and waits until its device answers nothing any more.
func begin(t *testing.T, name string, own bool) *victim {
	t.Helper()
	if err := fuse.Usable(); err != nil {
		t.Skipf("FUSE and loop devices: %v", err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{t: t, dir: dir, gone: make(chan struct{}), cmd: exec.Command(os.Args[0], childWord, name, dir)}
	v.cmd.Stderr = os.Stderr
	if own {
		v.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // private, as os/exec makes it
	}
	in, err := v.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.end)
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "held" {
		t.Fatalf("the child says %q, %v", lines.Text(), lines.Err())
	}
	go func() {
		for lines.Scan() {
			t.Errorf("the child says %q", lines.Text())
		}
		_, _ = v.cmd.Wait(), in.Close() // killed
		close(v.gone)
	}()
	return v
}

// awaitWaiting waits until the victim, or a child of its, cannot go on in one
// of the system calls.
func (v *victim) awaitWaiting(numbers []int) {
	v.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(tick) {
		if slices.ContainsFunc(family(v.cmd.Process.Pid), func(p int) bool { return waitsIn(p, numbers) }) {
			return
		}
		if time.Now().After(end) {
			v.t.Fatalf("the child does not wait for its device in %v: %s", numbers, v.threads())
		}
	}
}

// kill kills the victim alone and waits until it and all it started are gone.
func (v *victim) kill() {
	v.t.Helper()
	v.fuse = append(v.fuse, lab.Connections(v.cmd.Process.Pid, v.dir)...)
	all := family(v.cmd.Process.Pid)
	if err := v.cmd.Process.Kill(); err != nil {
		v.t.Fatal(err)
	}
	select {
	case <-v.gone:
	case <-time.After(patience):
		v.t.Errorf("the killed process is still there: %s", v.threads())
		v.free()
		<-v.gone
	}
	for end := time.Now().Add(patience); slices.ContainsFunc(all, alive); time.Sleep(tick) {
		if time.Now().After(end) {
			v.t.Fatalf("something it started is still there: %v", all)
		}
	}
}

// clear takes away what the victim left, as its successor does.
func (v *victim) clear() {
	v.t.Helper()
	if err := unix.Unmount(mountIn(v.dir), 0); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		v.t.Errorf("unmount the file system: %v", err)
	}
	if err := fuse.New(fuse.Config{Mountpoint: pointIn(v.dir)}).Clean(); err != nil {
		v.t.Error(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(tick) {
		left := append(mountsBelow(v.t, v.dir), loopsBelow(v.t, v.dir)...)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			v.t.Fatalf("left: %q", left)
		}
	}
}

// end ends what a failed test left.
func (v *victim) end() {
	if !v.t.Failed() {
		return
	}
	v.fuse = append(v.fuse, lab.Connections(v.cmd.Process.Pid, v.dir)...)
	v.cmd.Process.Kill() //nolint:errcheck // it may have ended
	v.free()
	<-v.gone
	unix.Unmount(mountIn(v.dir), unix.MNT_DETACH)                //nolint:errcheck // the test has failed
	unix.Unmount(pointIn(v.dir), unix.MNT_DETACH|unix.MNT_FORCE) //nolint:errcheck // the test has failed
}

// free ends what a victim that hangs waits for, so that the machine does not
// hang as well.
func (v *victim) free() {
	if err := lab.AbortConnections(v.fuse); err != nil {
		v.t.Error(err)
	}
}

// family is a process and all below it.
func family(pid int) []int {
	all := []int{pid}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return all // the pattern is well formed
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // it ended
		}
		for _, word := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(all, family(child)...)
			}
		}
	}
	return all
}

func alive(pid int) bool { return len(states(pid)) > 0 }

// states are those of the threads of a process that have not ended.
func states(pid int) (all []string) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return nil // the pattern is well formed
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(filepath.Join(task, "stat"))
		if err != nil {
			continue // it ended
		}
		state := stat[strings.LastIndexByte(string(stat), ')')+2]
		call, err := os.ReadFile(filepath.Join(task, "syscall"))
		if state != 'Z' && state != 'X' && err == nil {
			all = append(all, string(state)+" "+string(call))
		}
	}
	return all
}

// waitsIn reports whether a thread cannot go on in one of the system calls. An
// ioctl that asks our own service may be interrupted until it is killed.
func waitsIn(pid int, numbers []int) bool {
	return slices.ContainsFunc(states(pid), func(state string) bool {
		words := strings.Fields(state)
		if len(words) < 2 {
			return false
		}
		number, err := strconv.Atoi(words[1])
		return err == nil && slices.Contains(numbers, number) && (words[0] == "D" || words[0] == "S" && number == unix.SYS_IOCTL)
	})
}

func (v *victim) threads() string {
	var out strings.Builder
	for _, pid := range family(v.cmd.Process.Pid) {
		fmt.Fprintf(&out, "\n%d: %q", pid, states(pid))
	}
	return out.String()
}

func mountsBelow(t *testing.T, dir string) (found []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " "+dir+"/") {
			found = append(found, line)
		}
	}
	return found
}

func loopsBelow(t *testing.T, dir string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(text), dir+"/") {
			found = append(found, file)
		}
	}
	return found
}
