package bubble

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"hapair/mirror/state"
)

// lines is the log, each line with its virtual time.
type lines struct {
	mu    sync.Mutex
	start time.Time
	buf   bytes.Buffer
}

// Write implements zapcore.WriteSyncer.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 64<<20 {
		l.buf.Next(32 << 20)
	}
	fmt.Fprintf(&l.buf, "%10.4f ", time.Since(l.start).Seconds())
	return l.buf.Write(b)
}

// Sync implements zapcore.WriteSyncer.
func (l *lines) Sync() error { return nil }

func (l *lines) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes())
}

const watchEvery = 3 * time.Millisecond

// watch checks all the time that at most one device answers, that no node's
// tokens fall, and that a tenure has one Primary.
func (w *World) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	tenures := map[uint64]string{}
	for {
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
		var serving []string
		for _, n := range w.setup.nodes() {
			b := w.get(n)
			if b == nil {
				continue
			}
			r, _ := b.ledger.Record(resource)
			if r.Token < b.token && (len(w.setup.nodes()) > 2 || r.Token != 0) { // 0: it has discarded its ledger
				w.failf("%s: the record's token was %d and is %d", n, b.token, r.Token)
			}
			b.token = r.Token
			if was := tenures[uint64(r.Tenure)]; r.Primary != "" && was != "" && was != r.Primary {
				w.failf("tenure %d belongs to %s and to %s", r.Tenure, was, r.Primary)
			} else if r.Primary != "" {
				tenures[uint64(r.Tenure)] = r.Primary
			}
			if b.serves() {
				serving = append(serving, n)
			}
		}
		if len(serving) > 1 {
			w.failf("the devices of %v answer", serving)
		}
	}
}

// serves reports whether the device of a node would answer now, by the node's
// own clock.
func (b *boot) serves() bool {
	if b.mirror == nil || b.door.current() == nil || b.door.standing() != nil {
		return false
	}
	v := b.mirror.View()
	return v.Role == state.Primary && !v.Deposed && v.Tenure != 0 && b.box.clock.now() < v.LeaseTo
}

// primary is the node whose device answers, "" for none.
func (w *World) primary() string {
	for _, n := range dataNodes {
		if b := w.get(n); b != nil && b.serves() {
			return n
		}
	}
	return ""
}

// ailing says what is not well, "" when everything is: one node serves, the
// copies are in sync, nothing waits.
func (w *World) ailing() string {
	for _, n := range w.setup.nodes() {
		if !w.up(n) {
			return n + " is down"
		}
	}
	p := w.primary()
	if p == "" {
		return "nobody serves"
	}
	for _, n := range dataNodes {
		v := w.get(n).mirror.View()
		if v.Replication != state.Established || v.Volumes[0].Disk != state.UpToDate || len(v.Record.InSync) != 2 || v.Suspect {
			return fmt.Sprintf("%s: %s, disk %s, in sync %v, suspect %t", n, v.Replication, v.Volumes[0].Disk, v.Record.InSync, v.Suspect)
		}
	}
	if s := w.get(p).door.current(); s == nil || s.done.Load() < 2*regions || s.oldest() > 3*time.Second {
		return "the applications wait"
	}
	return ""
}

// mend undoes every fault.
func (w *World) mend() {
	w.notef("everything is mended")
	w.arm(gun{takes: time.Second})
	w.fabric.healAll()
	w.fabric.weather(time.Millisecond, 0)
	for _, n := range w.setup.nodes() {
		w.pause(n, false)
		if b := w.get(n); b != nil {
			for _, h := range b.disks {
				h.setSlow(400 * time.Microsecond)
				h.setError(nil)
			}
		}
	}
}

// recover mends everything, starts whoever is down, and waits until all is
// well; it returns how long that took.
func (w *World) recover(within time.Duration) time.Duration {
	w.mend()
	for _, n := range w.setup.nodes() {
		if !w.up(n) {
			w.boot(n)
		}
	}
	return w.await(within, "all is well", w.ailing)
}

// await waits until ailing returns "", and fails the test with what it says
// last when that takes too long.
func (w *World) await(within time.Duration, what string, ailing func() string) time.Duration {
	w.t.Helper()
	began := time.Now()
	for {
		why := ailing()
		if why == "" {
			break
		}
		if time.Since(began) > within {
			w.report()
			w.failf("liveness: not within %v: %s; last: %s", within, what, why)
			w.t.FailNow()
		}
		time.Sleep(5 * time.Millisecond)
	}
	if w.ailing() == "" {
		w.mu.Lock()
		for _, x := range w.boxes {
			x.fragile, x.fragileCut = false, false
		}
		w.mu.Unlock()
	}
	return time.Since(began)
}

// report writes everybody's state to the test's log.
func (w *World) report() {
	for _, n := range w.setup.nodes() {
		b := w.get(n)
		if b == nil {
			w.t.Logf("%s is down", n)
			continue
		}
		s := b.ledger.Status()
		w.t.Logf("%s: ledger %s, leader %q, quorum %t, applied %d, promising %t, err %v", n, s.State, s.Leader, s.Quorum, s.Applied, s.Promising, s.Err)
		if b.control == nil {
			continue
		}
		st, v := b.control.Status(), b.mirror.View()
		w.t.Logf("%s: decision %v (%s), running %v; trouble %+v", n, st.Decision.Steps, st.Decision.Because, st.Running, st.View.Trouble)
		w.t.Logf("%s: mirror %+v; state %s, reason %v; lease %+v, clock %v", n, v.View, v.State, v.Reason, b.ledger.Lease(resource), b.box.clock.now())
		w.t.Logf("%s: peer is %s (%v)", n, st.View.Peer.Verdict, st.View.Peer.Reasons)
		if s := b.door.current(); s != nil {
			w.t.Logf("%s: applications: %d answered, oldest waits %v", n, s.done.Load(), s.oldest())
		}
		entries := b.control.Journal().Since(0)
		for _, e := range entries[max(0, len(entries)-25):] {
			w.t.Logf("%s: %v %s: %s", n, e.At-time.Hour, e.Kind, e)
		}
	}
}

// still lets the applications rest, compares the two copies, and lets them go on.
func (w *World) still() {
	w.hush(true)
	defer w.hush(false)
	w.await(5*time.Second, "nothing is under way", func() string {
		for _, n := range dataNodes {
			if s := w.get(n).door.current(); s != nil && s.oldest() > 0 {
				return n + " has requests under way"
			}
		}
		return ""
	})
	time.Sleep(100 * time.Millisecond)
	w.same()
}

// same compares the two copies.
func (w *World) same() {
	var data [2][regionBytes]byte
	for r := range int64(regions) {
		for i, n := range dataNodes {
			if err := w.boxes[n].drives[diskFile].read(onVolume(r*regionBytes), data[i][:]); err != nil {
				w.failf("read the drive of %s: %v", n, err)
				return
			}
		}
		if data[0] == data[1] {
			continue
		}
		at := 0
		for data[0][at] == data[1][at] {
			at++
		}
		w.failf("the copies differ in region %d from byte %d on", r, at)
	}
}
