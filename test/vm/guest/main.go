// Command guest is process 1 of a virtual machine of test/vm. It loads modules,
// mounts, configures the network, and then does what the lab asks over HTTP on
// the machine's own network card for that:
//
//	POST /agent/start, /agent/signal?sig=9     the agent; a signal that ends it returns when it has ended
//	POST /exec                                 a JSON list of words; its output, as it comes; it ends with the request
//	any  /api/...                              the agent's API
//	GET  /log                                  what the agent wrote
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hapair/test/vm/spec"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guest:", err)
		time.Sleep(time.Second) // so that the console shows it
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
}

func run() error {
	var s spec.Guest
	text, err := os.ReadFile(spec.File)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return err
	}
	for _, step := range []func(spec.Guest) error{loadModules, mountAll, configure} {
		if err := step(s); err != nil {
			return err
		}
	}
	g := &guest{spec: s}
	go reap()
	fmt.Printf("guest: %s is up\n", s.Name)
	return http.ListenAndServe(":80", g.handler())
}

// loadModules loads them in the order that the lab has found.
func loadModules(s spec.Guest) error {
	for _, name := range s.Modules {
		f, err := os.Open(filepath.Join(spec.ModuleDir, name))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	return nil
}

// mountAll makes the root look like a machine's.
func mountAll(s spec.Guest) error {
	mounts := [][3]string{{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"}, {"tmpfs", "/run", "tmpfs"},
		{"tmpfs", "/srv", "tmpfs"}, {"tmpfs", "/tmp", "tmpfs"}}
	if s.State != "" {
		mounts = append(mounts, [3]string{s.State, "/var/lib/hapair", "ext4"})
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m[0], m[1], m[2], 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s at %s: %w", m[0], m[1], err)
		}
	}
	if err := os.Mkdir("/run/hapair", 0o755); err != nil {
		return err
	}
	return unix.Sethostname([]byte(s.Name))
}

// configure gives the network cards their addresses, by their hardware addresses.
func configure(s spec.Guest) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		address := s.Addresses[l.Attrs().HardwareAddr.String()]
		if l.Attrs().Name != "lo" && address == "" {
			continue
		}
		if address != "" {
			a, err := netlink.ParseAddr(address)
			if err == nil {
				err = netlink.AddrAdd(l, a)
			}
			if err != nil {
				return fmt.Errorf("address %s of %s: %w", address, l.Attrs().Name, err)
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

// guest is what runs in this machine.
type guest struct {
	spec spec.Guest

	mu    sync.Mutex
	agent *exec.Cmd
	ended chan struct{}
}

func (g *guest) handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST /agent/start", g.start)
	m.HandleFunc("POST /agent/signal", g.signal)
	m.HandleFunc("POST /exec", g.exec)
	m.HandleFunc("GET /log", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, spec.LogFile) })
	m.HandleFunc("/api/", g.api)
	return m
}

// reap buries orphans: children of this process that no command here waits for.
func reap() {
	for range time.Tick(time.Second) {
		orphans, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			continue
		}
		for _, name := range orphans {
			var pid, parent int
			var state string
			text, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			_, rest, _ := strings.Cut(string(text), ") ")
			if n, err := fmt.Sscanf(string(text), "%d", &pid); n != 1 || err != nil {
				continue
			}
			if n, err := fmt.Sscanf(rest, "%s %d", &state, &parent); n == 2 && err == nil && state == "Z" && parent == 1 {
				bury(pid)
			}
		}
	}
}
