package mirror

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
	"hapair/mirror/store"
	"hapair/test/fault"
)

// hanging is a pair whose Primary goes on through its peer, because its disk
// answers nothing; it is taken back after a pause.
func hanging(t *testing.T, pause time.Duration) (p *pair, hang *unplugging) {
	t.Helper()
	hang = &unplugging{}
	p = layeredTakingBack(t, pause, "disk", func(n *pairNode, d block.Disk) block.Disk {
		u := unplugging{fault.New(d), d, make(chan struct{})}
		if n.name == "alpha" {
			*hang = u
		}
		return u
	})
	a := p.nodes[0]
	a.Configure(Settings{DiskTimeout: 200 * time.Millisecond})
	p.hangs(hang)
	return p, hang
}

// hangs has the disk of alpha answer nothing, until it is given up.
func (p *pair) hangs(hang *unplugging) {
	t, a := p.t, p.nodes[0]
	t.Helper()
	hang.Add(fault.Rule{Hang: true})
	must(t, a.door.do(t, &block.Request{Op: block.Write, Length: 4096, Data: fill(1, 4096)}))
	a.await(t, "forwarding", func(v View) bool { return v.Replication == state.Forwarding && v.Volumes[0].Hung })
}

// attachWhenItMay attaches the disks as soon as nothing else is under way.
func (n *pairNode) attachWhenItMay(t *testing.T) (err error) {
	t.Helper()
	err = engine.ErrBadState
	for end := time.Now().Add(20 * time.Second); errors.Is(err, engine.ErrBadState) && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		err = n.Attach(t.Context(), AttachOptions{})
	}
	return err
}

// answers lets go of all that hangs.
func (u *unplugging) answers() {
	u.Clear()
	close(u.freed)
	u.Release()
	u.Unplug()
}

// A disk that hung is attached by itself when it has let go of everything, after a
// pause; not before.
func TestDiskThatAnswersAgainIsTakenBack(t *testing.T) {
	p, hang := hanging(t, 300*time.Millisecond)
	a := p.nodes[0]
	if v := a.View(); v.TakenBackAt != 0 {
		t.Fatalf("taken back at %v, and it still has requests", v.TakenBackAt)
	}
	hang.answers()
	a.await(t, "about to be attached", func(v View) bool { return v.TakenBackAt > v.Now || v.Replication == state.Established })
	a.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 && v.TakenBackAt == 0 })
	p.equal()
}

// Who has it attached while it hangs changes nothing of that, and is not told that it
// answers before it does.
func TestDiskThatHangsIsNotAttached(t *testing.T) {
	p, hang := hanging(t, 300*time.Millisecond)
	a := p.nodes[0]
	for range 2 {
		err := a.attachWhenItMay(t)
		if !errors.Is(err, store.ErrInUse) || !errors.Is(err, block.ErrNoAnswer) {
			t.Fatalf("an attach while the disk hangs: %v", err)
		}
		if a.answersAgain() || a.View().TakenBackAt != 0 {
			t.Fatal("it is to answer again, and does not")
		}
	}
	hang.answers()
	a.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
	p.equal()
}

// An agent that ends says what such a disk has not answered.
func TestCloseAfterAnAttachDuringAHang(t *testing.T) {
	p, hang := hanging(t, time.Hour)
	a := p.nodes[0]
	if err := a.attachWhenItMay(t); !errors.Is(err, store.ErrInUse) {
		t.Fatal(err)
	}
	p.demote(0)
	if err := a.Close(t.Context()); !errors.Is(err, block.ErrNoAnswer) {
		t.Errorf("closed with %v", err)
	}
	hang.answers()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if d, err := store.Open(filepath.Join(a.dir, "disk"), store.Options{}); err == nil {
			must(t, d.Close())
			p.open(0)
			return
		}
	}
	t.Fatal("the disk was never released")
}

// One that does it again and again is taken back after longer and longer, and then
// no more; an operator attaches it.
func TestDiskThatHangsTooOftenIsLeftAlone(t *testing.T) {
	p, hang := hanging(t, time.Millisecond)
	a := p.nodes[0]
	for range takeBackTries {
		hang.answers()
		a.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
		p.hangs(hang)
	}
	hang.answers()
	a.await(t, "left alone", func(v View) bool {
		told, _ := a.obs.told()
		return slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, "left alone until somebody attaches it") })
	})
	if v := a.View(); v.TakenBackAt != 0 || v.Volumes[0].Disk != state.Failed {
		t.Fatalf("taken back at %v, %s", v.TakenBackAt, v.Volumes[0].Disk)
	}
	must(t, a.Attach(t.Context(), AttachOptions{}))
	a.await(t, "in sync", func(v View) bool { return established(v) && len(v.Record.InSync) == 2 })
}

// A disk that has failed with an error is nobody's to take back but an operator's.
func TestDiskThatFailedIsNotTakenBack(t *testing.T) {
	p := givenUp(t)
	a := p.nodes[0]
	if a.View().Volumes[0].Hung || a.answersAgain() {
		t.Fatal("a disk that failed would be attached by itself")
	}
}

// What else is under way when the pause of a disk is over, or before, is not another hang:
// only a disk that does not answer begins anew.
func TestPauseOfATakenBackDisk(t *testing.T) {
	var b takeBack
	says := func(now time.Duration, answers, plan, due bool) {
		t.Helper()
		if p, d := b.next(now, answers); p != plan || d != due {
			t.Fatalf("at %v: plan %t, due %t", now, p, d)
		}
	}
	says(time.Second, false, false, false)
	says(2*time.Second, true, true, false)
	b.due, b.tries = 12*time.Second, 1
	says(3*time.Second, true, false, false)
	says(12*time.Second, true, false, true)
	says(13*time.Second, true, false, true) // it could not be attached just then
	says(14*time.Second, false, false, false)
	says(15*time.Second, true, true, false)
	b.due, b.told = 0, true
	says(16*time.Second, true, false, false)
}
