package vm

import (
	"context"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/script"
)

// What TestShortMemory writes, and how much memory it leaves for that.
const (
	fileMiB    = 40
	leftMiB    = 48
	shortLimit = 5 * time.Minute // of a round, on a machine whose instructions are translated
)

// While next to nothing is left of a machine's memory, a file that does not fit into
// the rest is written to a filesystem on the device: room comes only from dirty pages
// that the agent writes out. It goes on, the Primary stays, and the file is what was
// written.
func TestShortMemory(t *testing.T) {
	ctx, l := up(t, options(t))
	for _, node := range []string{script.Alpha, script.Beta} {
		readyForShortMemory(ctx, t, l, node)
	}
	primary := servesOn(ctx, t, l)
	left := l.fillMemory(ctx, t, primary)
	l.writeInTheRest(ctx, t, primary)
	if again := servesOn(ctx, t, l); again != primary {
		t.Errorf("%s is Primary, it was %s", again, primary)
	}
	l.Say("%d MiB written with %d MiB of memory left", fileMiB, left)
}

// up boots a lab that is taken down with the test, and by whoever interrupts it: then
// nothing is left.
func up(t *testing.T, o Options) (context.Context, *Lab) {
	t.Helper()
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGINT, syscall.SIGTERM)
	o.Dir = labDir(t)
	began := time.Now()
	l, err := Up(ctx, o)
	if err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			l.tell(t)
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	l.Say("%d machines are up after %s", len(l.machines), time.Since(began).Round(time.Millisecond))
	return ctx, l
}

// servesOn waits for both copies to be current, and returns the Primary, whose
// services run.
func servesOn(ctx context.Context, t *testing.T, l *Lab) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, shortLimit)
	defer cancel()
	for {
		for _, node := range []string{script.Alpha, script.Beta} {
			s := l.status(ctx, t, node)
			if r := s.Resource(resource); r != nil && r.Role == "Primary" && len(r.InSync) == 2 && len(r.Services) > 0 && r.Services[0].State == apiv1.ServiceRunning {
				return node
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("nobody serves, or one copy is not current")
		case <-time.After(time.Second): // each look costs such a machine a good part of that
		}
	}
}

// fillMemory leaves leftMiB of a machine's memory, and says what is left.
func (l *Lab) fillMemory(ctx context.Context, t *testing.T, node string) (mib int) {
	t.Helper()
	out, err := l.machines[node].run(ctx, "/bin/sh", "-ec", fmt.Sprintf(`
mkdir -p /full; busybox mount -t tmpfs -o size=95%% none /full
available() { busybox awk '/^MemAvailable/ { print int($2/1024) }' /proc/meminfo; }
dd if=/dev/zero of=/full/of bs=1M count=$(( $(available) - %d )) 2>/dev/null
available`, leftMiB))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(strings.TrimSpace(out), &mib); err != nil || mib > 2*leftMiB {
		t.Fatalf("%s has %q MiB left, want about %d: %v", node, out, leftMiB, err)
	}
	return mib
}

// writeInTheRest writes a file through the page cache, and reads it back from the
// disks.
func (l *Lab) writeInTheRest(ctx context.Context, t *testing.T, node string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, shortLimit)
	defer cancel()
	began := time.Now()
	_, err := l.machines[node].run(ctx, "/bin/sh", "-ec", fmt.Sprintf(`
busybox yes "this is written while memory is short" | busybox head -c %d > /srv/pg/short
sync
echo 3 > /proc/sys/vm/drop_caches
busybox yes "this is written while memory is short" | busybox head -c %d | cmp - /srv/pg/short`, fileMiB<<20, fileMiB<<20))
	if err != nil {
		t.Fatal(err)
	}
	l.Say("%d MiB in %s", fileMiB, time.Since(began).Round(time.Second))
}
