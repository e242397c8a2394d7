package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Enter starts a command inside a node, as if typed there. The caller waits
// for it, as after cmd.Start; a command nobody waits for keeps the node from
// ending. An empty environment becomes the lab's, with hactl and halab in PATH.
func (l *Lab) Enter(name string, cmd *exec.Cmd) error {
	n, err := l.node(name)
	if err != nil {
		return err
	}
	if !n.Init.alive() {
		return fmt.Errorf("lab: %s is off", name)
	}
	if cmd.Env == nil {
		cmd.Env = l.environment()
	}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	if err := onOwnThread(func() error { return n.Init.enter(cmd) }); err != nil {
		return fmt.Errorf("lab: run %q on %s: %w", cmd.Args, name, err)
	}
	return nil
}

// enter joins every namespace of the node on this thread and starts there.
func (p process) enter(cmd *exec.Cmd) error {
	var fds []int
	kinds := []struct {
		name string
		flag int
	}{{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}}
	defer func() {
		for _, fd := range fds {
			unix.Close(fd) //nolint:errcheck // only looked through
		}
	}()
	for _, k := range kinds { // all before the first: /proc changes on the way
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", p.PID, k.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", k.name, err)
		}
		fds = append(fds, fd)
	}
	// A thread that shares its root with others may not change mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for i, k := range kinds {
		if err := unix.Setns(fds[i], k.flag); err != nil {
			return fmt.Errorf("enter namespace %s: %w", k.name, err)
		}
	}
	return cmd.Start()
}

// Run runs a command inside a node and returns what it printed, both streams.
func (l *Lab) Run(ctx context.Context, name string, argv ...string) (string, error) {
	path, err := l.LookPath(argv[0])
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	out := new(strings.Builder)
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := l.Enter(name, cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("lab: %q on %s: %w: %s", argv, name, err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// LookPath finds a program in the lab's PATH.
func (l *Lab) LookPath(program string) (string, error) {
	if strings.Contains(program, "/") {
		return program, nil
	}
	for _, dir := range filepath.SplitList(l.path()) {
		p := filepath.Join(dir, program)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("no %s in %s", program, l.path())
}

// path is where the lab looks for programs: its own first.
func (l *Lab) path() string {
	dirs := []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	if agent := l.state.Options.Agent; len(agent) > 0 {
		dirs = append([]string{filepath.Dir(agent[0])}, dirs...)
	}
	return strings.Join(dirs, ":")
}

// environment is that of everything that runs in the lab.
func (l *Lab) environment() []string {
	env := []string{idVariable + "=" + l.state.ID, "HAPAIR_LAB_VOLATILE_CACHE=1", "HAPAIR_LAB_FAULTS=" + faultSocket, "PATH=" + l.path(), "HOME=/root", "LANG=C.UTF-8"}
	if term := os.Getenv("TERM"); term != "" {
		env = append(env, "TERM="+term)
	}
	return append(env, l.state.Options.Env...)
}

// findAgent looks for the agent's program when none was given.
func (o *Options) findAgent() error {
	if len(o.Agent) > 0 {
		_, err := os.Stat(o.Agent[0])
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var tried []string
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(self), "bin", filepath.Join(wd, "bin"), filepath.Join(wd, "../../bin"), filepath.Join(wd, "../../../bin")} {
		p, err := filepath.Abs(filepath.Join(dir, "haagent-lab"))
		if err != nil {
			return err
		}
		if _, err := os.Stat(p); err == nil {
			o.Agent = []string{p}
			return nil
		}
		tried = append(tried, p)
	}
	if o.NoAgents {
		return nil
	}
	return errors.New("lab: no haagent-lab (make haagent-lab); looked for " + strings.Join(tried, ", "))
}
