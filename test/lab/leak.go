package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Leaks names what is still there of a lab that went down: processes,
// namespaces, loop devices, mounts, files. Nothing may be.
func (l *Lab) Leaks() []string {
	var out []string
	for _, pid := range l.strays() {
		if p, err := identify(pid); err == nil && p.alive() {
			out = append(out, fmt.Sprintf("process %d", pid))
		}
	}
	names, err := filepath.Glob(filepath.Join(netnsDir, l.nsPrefix()+"*"))
	if err == nil {
		out = append(out, names...)
	}
	loops, err := loopsBelow(l.dir)
	if err == nil {
		for _, loop := range append(loops, l.seen...) {
			// The kernel detaches after the last close, in its own time.
			if !await(context.Background(), deathTimeout, func() bool { return !loop.attached() }) {
				out = append(out, loop.path)
			}
		}
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err == nil {
		for _, line := range strings.Split(string(text), "\n") {
			if strings.Contains(line, " "+l.dir+"/") {
				out = append(out, "mount "+line)
			}
		}
	}
	if _, err := os.Stat(l.dir); !errors.Is(err, os.ErrNotExist) {
		out = append(out, l.dir)
	}
	return out
}
