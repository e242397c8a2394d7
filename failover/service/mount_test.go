package service

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loop makes a loop device of size bytes with a filesystem by mkfs.
func loop(t *testing.T, size int64, mkfs ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for loop devices and mounts")
	}
	for _, tool := range []string{mkfs[0], "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	command(t, append(mkfs, file)...)
	dev := strings.TrimSpace(command(t, "losetup", "--find", "--show", file))
	t.Cleanup(func() { command(t, "losetup", "--detach", dev) })
	return dev
}

func command(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

func ext4(t *testing.T) string { return loop(t, 32<<20, "mkfs.ext4", "-q", "-F") }

func newMovable(t *testing.T, s Spec) Movable {
	t.Helper()
	m, err := New(s, Deps{Resource: "pg", Node: "alpha", Device: func(int) (string, error) { return "/dev/none", nil }})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mounted makes and starts a mount, which ends with the test whatever happens.
func mounted(t *testing.T, cfg Mount) (Movable, string) {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "not there yet", "srv")
	}
	if cfg.BusyWait == 0 {
		cfg.BusyWait = -1
	}
	m := newMovable(t, Spec{Mount: &cfg})
	t.Cleanup(func() {
		if err := m.(Forcible).StopForced(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m, cfg.Path
}

func wantRunning(t *testing.T, m Movable, want bool) {
	t.Helper()
	if got, err := m.Monitor(t.Context()); err != nil || got != want {
		t.Errorf("%s: running %v, %v; want %v", m.Name(), got, err, want)
	}
}

func TestMountFilesystems(t *testing.T) {
	for kind, make := range map[string]func(*testing.T) string{
		"ext2":  func(t *testing.T) string { return loop(t, 16<<20, "mkfs.ext2", "-q", "-F") },
		"ext4":  ext4,
		"xfs":   func(t *testing.T) string { return loop(t, 320<<20, "mkfs.xfs", "-q") },
		"btrfs": func(t *testing.T) string { return loop(t, 128<<20, "mkfs.btrfs", "-q") },
	} {
		t.Run(kind, func(t *testing.T) {
			dev := make(t)
			m, path := mounted(t, Mount{Device: dev, Options: "noatime,nodev,x-test"})
			wantRunning(t, m, true)
			at, err := mountAt(path)
			if err != nil || at == nil || at.Type != kind {
				t.Fatalf("%+v %v", at, err)
			}
			if err := m.Start(t.Context()); err != nil {
				t.Errorf("start of a started one: %v", err)
			}
			for range 2 {
				if err := m.Stop(t.Context()); err != nil {
					t.Errorf("stop: %v", err)
				}
			}
			wantRunning(t, m, false)
		})
	}
}

func TestBusyNamesTheHolder(t *testing.T) {
	for name, hold := range map[string]func(path string) *exec.Cmd{
		"cwd": func(path string) *exec.Cmd {
			c := exec.Command("sleep", "100")
			c.Dir = path
			return c
		},
		"open file": func(path string) *exec.Cmd {
			return exec.Command("tail", "-f", filepath.Join(path, "file"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, path := mounted(t, Mount{Device: ext4(t)})
			if err := os.WriteFile(filepath.Join(path, "file"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			holder := hold(path)
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = holder.Process.Kill() }) // it has ended, if the test passes
			ended := make(chan error, 1)
			go func() { ended <- holder.Wait() }()
			awaitHolder(t, path, holder.Process.Pid, name)

			var busy *BusyError
			if err := m.Stop(t.Context()); !errors.As(err, &busy) || !strings.Contains(err.Error(), holder.Path[strings.LastIndex(holder.Path, "/")+1:]) {
				t.Fatalf("stop: %v", err)
			}
			if len(busy.Holders) != 1 || busy.Holders[0].PID != holder.Process.Pid {
				t.Errorf("holders %v, want pid %d", busy.Holders, holder.Process.Pid)
			}
			wantRunning(t, m, true)
			if err := m.(Forcible).StopForced(t.Context()); err != nil {
				t.Fatalf("by force: %v", err)
			}
			if err := <-ended; err == nil {
				t.Error("the holder was not killed")
			}
			wantRunning(t, m, false)
		})
	}
}

// awaitHolder waits until the process holds the mount in the given way.
func awaitHolder(t *testing.T, path string, pid int, use string) {
	t.Helper()
	at, err := mountAt(path)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if strings.HasPrefix(useOf(pid, at.Dev), use) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("pid %d does not hold %s: %q", pid, path, useOf(pid, at.Dev))
		}
	}
}

func TestBusyNamesWhatIsMountedBelow(t *testing.T) {
	m, path := mounted(t, Mount{Device: ext4(t)})
	sub := filepath.Join(path, "a b")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	var busy *BusyError
	if err := m.Stop(t.Context()); !errors.As(err, &busy) || len(busy.Mounts) != 1 || busy.Mounts[0] != sub {
		t.Errorf("stop: %v", err)
	}
	if err := m.(Forcible).StopForced(t.Context()); err != nil {
		t.Errorf("by force: %v", err)
	}
}

func TestStopWaitsForABriefHolder(t *testing.T) {
	m, path := mounted(t, Mount{Device: ext4(t), BusyWait: 10 * time.Second})
	f, err := os.Create(filepath.Join(path, "file"))
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(120*time.Millisecond, func() { f.Close() })
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMountedInAnotherNamespace(t *testing.T) {
	dev := ext4(t)
	m, _ := mounted(t, Mount{Device: dev})
	other := exec.Command("unshare", "--mount", "--propagation", "private", "sleep", "100")
	if err := other.Start(); err != nil {
		t.Skipf("needs unshare: %v", err)
	}
	defer func() {
		if err := other.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := other.Wait(); err == nil {
			t.Error("sleep was not killed")
		}
	}()
	rdev, err := blockNumber(dev)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); len(namespaceHolders(rdev)) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the namespace does not come up")
		}
	}
	var busy *BusyError
	if err := m.Stop(t.Context()); !errors.As(err, &busy) || len(busy.Holders) != 1 || busy.Holders[0].PID != other.Process.Pid {
		t.Errorf("stop: %v", err)
	}
}

func TestForeignMountIsNotTouched(t *testing.T) {
	dev, path := ext4(t), t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
	m := newMovable(t, Spec{Mount: &Mount{Path: path, Device: dev}})
	var other *OtherMountError
	if err := m.Start(t.Context()); !errors.As(err, &other) || other.Type != "tmpfs" {
		t.Errorf("start: %v", err)
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Errorf("stop of what is not mounted: %v", err)
	}
	if at, err := mountAt(path); err != nil || at == nil {
		t.Errorf("the other mount is gone: %v", err)
	}
}

func TestDeviceMountedElsewhereIsRefused(t *testing.T) {
	dev := ext4(t)
	_, first := mounted(t, Mount{Device: dev})
	m := newMovable(t, Spec{Mount: &Mount{Path: filepath.Join(t.TempDir(), "second"), Device: dev}})
	var other *OtherMountError
	if err := m.Start(t.Context()); !errors.As(err, &other) || other.Path != first {
		t.Errorf("start: %v", err)
	}
}

func TestDamagedFilesystemIsNotMounted(t *testing.T) {
	dev := ext4(t)
	if _, err := exec.LookPath("debugfs"); err != nil {
		t.Skip("needs debugfs")
	}
	command(t, "debugfs", "-w", "-R", "clri <2>", dev)                // no root directory
	command(t, "debugfs", "-w", "-R", "set_super_value state 2", dev) // errors were seen
	m := newMovable(t, Spec{Mount: &Mount{Path: filepath.Join(t.TempDir(), "srv"), Device: dev}})
	var check *FsckError
	if err := m.Start(t.Context()); !errors.As(err, &check) || check.Code&fsckUncorrected == 0 {
		t.Errorf("start: %v", err)
	}
	wantRunning(t, m, false)
}

func TestNothingToMount(t *testing.T) {
	dev := loop(t, 4<<20, "true")
	m := newMovable(t, Spec{Mount: &Mount{Path: filepath.Join(t.TempDir(), "srv"), Device: dev}})
	if err := m.Start(t.Context()); !errors.Is(err, ErrUnknownFilesystem) || !isPermanent(err) {
		t.Errorf("an empty device: %v", err)
	}
	absent := newMovable(t, Spec{Mount: &Mount{Path: "/srv/nothing", Device: "/dev/hapair-absent"}})
	if err := absent.Start(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no device: %v", err)
	}
	if err := absent.Stop(t.Context()); err != nil {
		t.Errorf("stop without a device: %v", err)
	}
	wrong := newMovable(t, Spec{Mount: &Mount{Path: "/srv/nothing", Device: "/dev/null"}})
	var not *notBlockError
	if err := wrong.Start(t.Context()); !errors.As(err, &not) {
		t.Errorf("a character device: %v", err)
	}
}

// A system call that hangs is not waited for beyond the context, and the next
// operation begins only when it has returned.
func TestStuckCall(t *testing.T) {
	var c calls
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stuck *StuckError
	err := c.slowly(ctx, "mount", "/srv/x", func() error { <-release; return nil })
	if !errors.As(err, &stuck) || !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	called := false
	if err := c.slowly(ctx, "unmount", "/srv/x", func() error { called = true; return nil }); !errors.As(err, &stuck) || called {
		t.Errorf("the next one begins meanwhile: %v", err)
	}
	close(release)
	if err := c.slowly(t.Context(), "unmount", "/srv/x", func() error { called = true; return nil }); err != nil || !called {
		t.Errorf("the next one does not begin afterwards: %v", err)
	}
}

func TestSpecRefusals(t *testing.T) {
	good := Mount{Path: "/srv/pg", Device: "/dev/loop0"}
	change := func(f func(*Mount)) *Mount {
		m := good
		f(&m)
		return &m
	}
	for name, s := range map[string]Spec{
		"nothing":        {},
		"two":            {Mount: &good, Systemd: &Systemd{Unit: "a.service"}},
		"relative path":  {Mount: change(func(m *Mount) { m.Path = "srv" })},
		"root":           {Mount: change(func(m *Mount) { m.Path = "//" })},
		"relative dev":   {Mount: change(func(m *Mount) { m.Device = "loop0" })},
		"bind":           {Mount: change(func(m *Mount) { m.Options = "rw,bind" })},
		"long options":   {Mount: change(func(m *Mount) { m.Options = strings.Repeat("a", 4001) })},
		"bare unit":      {Systemd: &Systemd{Unit: "postgresql"}},
		"unit path":      {Systemd: &Systemd{Unit: "a/b.service"}},
		"no stop":        {Exec: &Exec{Start: Shell("true")}},
		"relative":       {Exec: &Exec{Start: []string{"true"}, Stop: Shell("true")}},
		"negative time":  {Exec: &Exec{Start: Shell("true"), Stop: Shell("true"), StopTimeout: -1}},
		"negative count": {Mount: change(func(m *Mount) { m.Volume = -1 })},
	} {
		if _, err := New(s, Deps{Resource: "pg"}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
