package vm

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hapair/test/script"
)

// bites is the time-out of the kernel's watchdog here: machines are slow.
const bites = 20 * time.Second

// The agent of the Primary stands still: the kernel's own watchdog, softdog, resets
// the machine, and the Secondary has taken over. No record is lost, and the old
// Primary comes back into line. The agent of the Secondary is killed and started
// again in the time of the watchdog: that machine goes on. One that is stopped in
// order disarms it.
func TestSoftdog(t *testing.T) {
	o := options(t)
	o.Watchdog = bites
	ctx, l := up(t, o)
	primary := servesOn(ctx, t, l)
	secondary := script.Peer(primary)
	for _, node := range []string{primary, secondary} {
		if w := l.status(ctx, t, node).Watchdog; w == nil || w.TimeoutMS != bites.Milliseconds() || w.Because != "" || !strings.Contains(w.Driver, "Software Watchdog") {
			t.Fatalf("the watchdog of %s: %+v", node, w)
		}
	}
	w, err := l.Write()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	answered(ctx, t, w, 10)
	for _, verb := range []script.Verb{script.Kill, script.Start} { // armed, and petted again
		l.must(t, verb, secondary)
	}
	l.status(ctx, t, secondary) // it is there
	servesOn(ctx, t, l)
	l.must(t, script.Stop, secondary)
	if out, err := l.machines[secondary].run(ctx, "/bin/cat", "/sys/class/watchdog/watchdog0/state"); err == nil && strings.TrimSpace(out) != "inactive" {
		t.Errorf("after a stop in order the watchdog of %s is %q", secondary, out)
	}
	l.must(t, script.Start, secondary)
	l.status(ctx, t, secondary)
	servesOn(ctx, t, l)
	paused := time.Now()
	l.must(t, script.Pause, primary)
	l.resets(ctx, t, primary, paused)
	answered(ctx, t, w, 10)
	l.must(t, script.PowerOff, primary) // QEMU has ended: what is left is to be cleared away
	l.must(t, script.PowerOn, primary)
	if now := servesOn(ctx, t, l); now != secondary {
		t.Fatalf("%s is Primary, not %s", now, secondary)
	}
	answered(ctx, t, w, 10)
	w.End()
	if err := l.Check(ctx, secondary, w.Acks(0)); err != nil {
		t.Error(err)
	}
}

func (l *Lab) must(t *testing.T, verb script.Verb, node string) {
	t.Helper()
	if err := l.Do(script.Action{Verb: verb, Node: node}); err != nil {
		t.Fatal(err)
	}
}

// resets waits until a machine is reset, and wants the watchdog to have done it, whose
// agent stands still since then. It returns when that was.
func (l *Lab) resets(ctx context.Context, t *testing.T, node string, since time.Time) time.Time {
	t.Helper()
	at := l.ends(ctx, t, node, "softdog: Initiating system reboot")
	took := at.Sub(since)
	l.Say("%s was reset %s after its agent had stood still, by a watchdog of %s", node, took.Round(100*time.Millisecond), bites)
	if took < bites/2 || took > bites*3/2 {
		t.Errorf("%s was reset after %s", node, took)
	}
	return at
}

// ends waits until a machine is reset, which is the end of its QEMU, and wants its
// console to have said why. It returns when that was.
func (l *Lab) ends(ctx context.Context, t *testing.T, node, why string) time.Time {
	t.Helper()
	m := l.machines[node]
	select {
	case err := <-m.ended:
		m.ended <- err
		if err != nil {
			t.Errorf("QEMU of %s: %v", node, err)
		}
	case <-time.After(shortLimit):
		t.Fatalf("%s was not reset", node)
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	at := time.Now()
	console := tail(filepath.Join(m.dir, "console.log"))
	if last := console[max(0, strings.LastIndex(console, "guest: "+node+" is up")):]; !strings.Contains(last, why) { // of this boot
		t.Errorf("the console of %s does not say %q: %s", node, why, console)
	}
	return at
}
