package bubble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"hapair/failover"
	"hapair/mirror"
	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
	"hapair/test/script"
)

// elsewhere are the scenarios that are not played here. A Primary of this world does
// not go on through its peer (TestADiskFails), and the book asks of a flush that
// the Primary's own drive has it.
var elsewhere = []string{"attach-under-load", "disk-of-primary-fails", "disk-of-primary-hangs"}

// TestScenarios plays the files of test/script/scenarios on the whole cluster but
// kernel and disks: the real plan, ledger and heartbeat, on virtual time.
// HAPAIR_SCENARIO=NAME plays one.
func TestScenarios(t *testing.T) {
	all, err := script.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if name := os.Getenv("HAPAIR_SCENARIO"); name != "" && name != s.Name || slices.Contains(elsewhere, s.Name) {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			u := usual()
			u.preferred = alpha
			run(t, int64(envInt("SEED", 1)), u, func(w *World) {
				w.hush(true)
				w.switchOn(allNodes...)
				l := &scenarioLab{w: w, cut: map[[2]string]bool{}}
				for _, n := range dataNodes {
					l.configure(n)
				}
				w.await(60*time.Second, "alpha serves, both in sync", func() string {
					if w.primary() != alpha || !l.current(alpha) || !l.current(beta) {
						return "not yet"
					}
					return ""
				})
				if err := s.Play(l, w.notef); err != nil {
					w.report()
					w.failf("%v", err)
				}
				t.Logf("%d answers, at most %s without one, %s", l.answers(), l.gap.Round(time.Millisecond), w.now().Round(time.Second))
			})
		})
	}
}

// scenarioLab is a world for a scenario. It is a script.Lab.
type scenarioLab struct {
	w    *World
	cut  map[[2]string]bool // node and path
	down bool               // an operator demoted it

	load  bool
	count int       // answers when it was looked last
	since time.Time // when they were fewer
	gap   time.Duration
}

// configure gives disks and peers little time.
func (l *scenarioLab) configure(node string) {
	l.w.get(node).mirror.Configure(mirror.Settings{Settings: engine.Settings{PeerTimeout: 6 * time.Second}, DiskTimeout: 3 * time.Second})
}

func (l *scenarioLab) violated() error {
	if l.w.violated() {
		return errors.New("a law was broken, see above")
	}
	return nil
}

// Now implements script.Lab.
func (l *scenarioLab) Now() time.Duration { return l.w.now() }

// Pass implements script.Lab.
func (l *scenarioLab) Pass(d time.Duration) error {
	time.Sleep(d)
	return l.violated()
}

// Load implements script.Lab.
func (l *scenarioLab) Load(on bool) error {
	l.w.hush(!on)
	l.load, l.since, l.count = on, time.Now(), l.answers()
	return nil
}

func (l *scenarioLab) answers() int {
	k := l.w.book
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.writes + k.reads + k.flushes
}

// Look implements script.Lab.
func (l *scenarioLab) Look() (script.View, error) {
	v := script.View{Nodes: map[string]script.NodeView{}, Answers: l.answers()}
	if l.load {
		l.gap = max(l.gap, time.Since(l.since))
	}
	if v.Answers > l.count {
		l.count, l.since = v.Answers, time.Now()
	}
	v.Gap = l.gap
	for _, n := range dataNodes {
		if b := l.w.get(n); b != nil && !b.frozen {
			x := b.mirror.View()
			v.Nodes[n] = script.NodeView{
				Serves: b.serves(), Frozen: x.Role == state.Primary && !b.serves(), InSet: x.Record.InSync, Current: l.current(n),
				Target:     x.Replication == state.SyncTarget || x.Replication == state.PausedSyncT,
				Forwarding: x.Replication == state.Forwarding, DiskGone: !x.Volumes[0].Disk.HasData(),
				Verified: x.Verify.State == engine.VerifyDone && x.Verify.Differing == 0,
			}
		}
	}
	return v, l.violated()
}

// current: both copies are, as far as a node knows.
func (l *scenarioLab) current(node string) bool {
	b := l.w.get(node)
	if b == nil {
		return false
	}
	x := b.mirror.View()
	return x.Replication == state.Established && len(x.Record.InSync) == 2 && x.Volumes[0].Disk == state.UpToDate && x.Volumes[0].PeerDisk == state.UpToDate
}

// nameOf is a node of a scenario here.
func nameOf(node string) string {
	if node == script.Gamma {
		return witness
	}
	return node
}

// Act implements script.Lab.
func (l *scenarioLab) Act(a script.Action) error {
	w, n := l.w, nameOf(a.Node)
	switch a.Verb {
	case script.PowerOff, script.Kill:
		w.crash(n, a.Verb == script.PowerOff)
	case script.PowerOn, script.Start:
		w.boot(n)
		if n != witness {
			l.configure(n)
		}
	case script.Stop:
		return w.stop(n)
	case script.Pause, script.Resume:
		w.pause(n, a.Verb == script.Pause)
	case script.Cut, script.Heal:
		l.cut[[2]string{n, a.Path}] = a.Verb == script.Cut
		l.cables()
	case script.DiskFails, script.DiskHangs, script.DiskIsSlow, script.DiskWorks:
		l.disk(n, a.Verb)
	default:
		return l.operator(n, a.Verb)
	}
	return l.violated()
}

// cables cuts who cannot reach whom. The mirror, membership and the ledger of the
// data nodes take whichever path there is; there is one link between them here.
func (l *scenarioLab) cables() {
	for i, x := range allNodes {
		for _, y := range allNodes[i+1:] {
			reach := !l.cut[[2]string{x, script.LAN}] && !l.cut[[2]string{y, script.LAN}]
			if y != witness {
				reach = reach || !l.cut[[2]string{x, script.Crossover}] && !l.cut[[2]string{y, script.Crossover}]
			}
			if reach {
				l.w.fabric.heal(x, y)
			} else {
				l.w.fabric.cutLink(x, y)
			}
		}
	}
}

func (l *scenarioLab) disk(node string, v script.Verb) {
	for i, h := range l.w.get(node).disks {
		switch {
		case v == script.DiskWorks:
			h.setError(nil)
			h.hang(false)
			h.setSlow(400 * time.Microsecond)
		case i > 0: // the data alone
		case v == script.DiskFails:
			h.setError(block.ErrIO)
		case v == script.DiskHangs:
			h.hang(true)
		default:
			h.setSlow(30 * time.Millisecond)
		}
	}
}

// operator asks what hactl asks.
func (l *scenarioLab) operator(node string, v script.Verb) error {
	b := l.w.get(node)
	if b == nil {
		return fmt.Errorf("no agent runs on %s", node)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	switch v {
	case script.Promote, script.Demote:
		if v == script.Promote {
			err = b.control.Promote(ctx, false, "")
		} else {
			err = b.control.Demote(ctx, false)
		}
		if err == nil {
			l.down = v == script.Demote
		}
	case script.Switchover:
		if p := l.w.get(l.w.primary()); p != nil { // the replica of the other may lag
			b = p
		}
		err = b.control.Switchover(ctx, node, false)
	case script.Connect:
		b.mirror.Connect()
	case script.Disconnect:
		b.mirror.Disconnect()
	case script.Attach:
		err = l.attach(ctx, b)
	case script.Invalidate:
		err = b.mirror.Invalidate(ctx, mirror.AllVolumes)
	case script.PauseSync, script.ResumeSync:
		err = b.mirror.PauseSync(ctx, v == script.PauseSync)
	case script.Verify, script.Repair:
		err = b.mirror.Verify(ctx, mirror.VerifyOptions{Volume: mirror.AllVolumes, Repair: v == script.Repair})
	default:
		return fmt.Errorf("verb %d: not implemented in this lab", v)
	}
	var no *failover.Refusal
	if errors.As(err, &no) || errors.Is(err, engine.ErrBadState) {
		return fmt.Errorf("%w: %w", script.ErrRefused, err)
	}
	return errors.Join(err, l.violated())
}

// attach waits for what the disk had been given.
func (l *scenarioLab) attach(ctx context.Context, b *boot) (err error) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = b.mirror.Attach(ctx, mirror.AttachOptions{}); err == nil {
			return nil
		}
	}
	return err
}

// End implements script.Lab.
func (l *scenarioLab) End() error {
	w := l.w
	l.cut = map[[2]string]bool{}
	for _, n := range dataNodes {
		b := w.get(n)
		if b == nil {
			continue
		}
		w.pause(n, false)
		if l.disk(n, script.DiskWorks); !b.mirror.View().Volumes[0].Disk.HasData() {
			w.crash(n, false) // somebody changes the cable and starts it again
			continue
		}
		b.mirror.Connect()
	}
	w.mend()
	for _, n := range allNodes {
		if !w.up(n) {
			w.boot(n)
		}
	}
	if l.down {
		if err := l.operator(alpha, script.Promote); err != nil {
			return err
		}
	}
	if err := l.Load(true); err != nil {
		return err
	}
	w.recover(again)
	w.still()
	return l.violated()
}
