package play

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab/record"
	"hapair/test/script"
)

// Lab is a pair for one scenario: a client that writes records and counts, and a
// watcher over both nodes. It is a script.Lab.
type Lab struct {
	p     Pair
	speed Speed
	ctx   context.Context
	start time.Time
	stop  context.CancelFunc
	watch sync.WaitGroup

	w        Writer    // nil while the load rests
	since    time.Time // its last answer, or its begin
	mine     int       // answers that were taken from it
	answered []record.Ack
	gap      time.Duration

	done done

	mu    sync.Mutex
	broke error
}

// Speed is how fast the machines of a pair are.
type Speed struct {
	Pace time.Duration // between two looks at a node
	Slow int           // how many seconds a second of a scenario takes
}

// New makes a lab of a pair that is as every scenario begins. Close ends it.
func New(ctx context.Context, p Pair, speed Speed) *Lab {
	ctx, stop := context.WithCancel(ctx)
	l := &Lab{p: p, speed: speed, ctx: ctx, start: time.Now(), stop: stop, done: newDone()}
	l.watch.Go(l.watchPrimaries)
	return l
}

// Close ends what watches and writes.
func (l *Lab) Close() {
	l.stop()
	l.watch.Wait()
	if l.w != nil {
		l.w.End()
	}
}

// Now implements script.Lab.
func (l *Lab) Now() time.Duration { return time.Since(l.start) / time.Duration(l.speed.Slow) }

// Pass implements script.Lab.
func (l *Lab) Pass(d time.Duration) error {
	select {
	case <-l.ctx.Done():
		return l.ctx.Err()
	case <-time.After(max(d*time.Duration(l.speed.Slow), l.speed.Pace)): // what is looked at tells nobody that it has changed
		return l.violated()
	}
}

// Load implements script.Lab.
func (l *Lab) Load(on bool) (err error) {
	switch {
	case on && l.w == nil:
		l.since, l.mine = time.Now(), 0
		l.w, err = l.p.Write()
	case !on && l.w != nil:
		l.w.End()
		l.take()
		l.w = nil
	}
	return err
}

// take takes the answers that came since it was called last.
func (l *Lab) take() {
	if l.w == nil {
		return
	}
	for _, a := range l.w.Acks(l.mine) {
		l.mine++
		l.gap, l.since = max(l.gap, a.At.Sub(l.since)), a.At
		l.answered = append(l.answered, a)
	}
}

// Gap is the longest time without an answer under load, the present one included,
// in the scenario's time.
func (l *Lab) Gap() time.Duration {
	l.take()
	gap := l.gap
	if l.w != nil {
		gap = max(gap, time.Since(l.since))
	}
	return gap / time.Duration(l.speed.Slow)
}

// Answers are how many there were.
func (l *Lab) Answers() int {
	l.take()
	return len(l.answered)
}

// Look implements script.Lab. A node of which it is known that its agent does not
// answer is not asked.
func (l *Lab) Look() (script.View, error) {
	v := script.View{Nodes: map[string]script.NodeView{}, Answers: l.Answers(), Gap: l.Gap()}
	for _, name := range dataNodes {
		if l.done.silent(name) {
			continue
		}
		if r := l.resource(l.ctx, name, l.askFor()); r != nil {
			v.Nodes[name] = seen(r)
		}
	}
	return v, l.violated()
}

var dataNodes = []string{script.Alpha, script.Beta}

// resource is the resource as a node sees it; nil when the node does not say.
func (l *Lab) resource(ctx context.Context, node string, within time.Duration) *apiv1.Resource {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	s := new(apiv1.Status)
	if err := l.p.Call(ctx, node, http.MethodGet, apiv1.PathStatus, nil, s); err != nil {
		return nil // off, paused, dead or starting: it answers nobody
	}
	return s.Resource(l.p.Resource())
}

// seen is what a status says.
func seen(r *apiv1.Resource) script.NodeView {
	n := script.NodeView{
		Frozen: r.Role == "Primary" && r.Frozen, InSet: r.InSync,
		DiskGone: r.DiskState == "Failed" || r.DiskState == "Diskless",
		Verified: r.Verify.State == apiv1.VerifyDone && r.Verify.DifferingBytes == 0,
	}
	absent := func(v apiv1.Volume) bool { return v.Device == "" } // promoted, but not open yet
	idle := func(s apiv1.Service) bool { return s.State != apiv1.ServiceRunning }
	n.Serves = r.Role == "Primary" && !r.Frozen && !slices.ContainsFunc(r.Volumes, absent) && !slices.ContainsFunc(r.Services, idle)
	if len(r.Peers) == 1 {
		q := r.Peers[0]
		n.Target, n.Forwarding = q.Replication == "SyncTarget" || q.Replication == "PausedSyncT", q.Replication == "Forwarding"
		n.Current = len(r.InSync) == 2 && r.DiskState == "UpToDate" && q.Replication == "Established" && q.DiskState == "UpToDate"
	}
	return n
}

// violated is the law that was broken so far.
func (l *Lab) violated() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broke
}

// watchPrimaries looks for two nodes that serve at one instant: one does, then the
// other, then the first again by the same token, so that it has in between.
func (l *Lab) watchPrimaries() {
	again := time.NewTicker(l.speed.Pace)
	defer again.Stop()
	for i := 0; ; i++ {
		select {
		case <-l.ctx.Done():
			return
		case <-again.C:
		}
		a, b := dataNodes[i%2], dataNodes[(i+1)%2]
		first := l.holds(a)
		if first == nil {
			continue
		}
		second := l.holds(b)
		if second == nil {
			continue
		}
		if third := l.holds(a); third != nil && third.Token == first.Token {
			l.mu.Lock()
			l.broke = &script.Violation{Clause: script.TwoPrimaries,
				Err: fmt.Errorf("%s serves by token %d, and so does %s by token %d", a, first.Token, b, second.Token)}
			l.mu.Unlock()
			return
		}
	}
}

// holds is the resource on a node that is Primary and holds its lease, else nil.
func (l *Lab) holds(node string) *apiv1.Resource {
	r := l.resource(l.ctx, node, l.askFor()/4)
	if r == nil || r.Role != "Primary" || r.Frozen || r.LeaseMS <= 0 {
		return nil
	}
	return r
}

// End implements script.Lab.
func (l *Lab) End() error {
	if err := l.mend(); err != nil {
		return err
	}
	if err := l.Load(true); err != nil {
		return err
	}
	if err := l.goesOn(); err != nil {
		return err
	}
	if err := l.Load(false); err != nil {
		return err
	}
	primary, err := l.Settle()
	if err != nil {
		return err
	}
	if err := l.p.Check(l.ctx, primary, l.answered); err != nil {
		return &script.Violation{Clause: script.AckLost, Err: err}
	}
	return l.violated()
}

// goesOn waits until the application is answered again.
func (l *Lab) goesOn() error {
	before := l.Answers()
	for end := time.Now().Add(l.patience()); l.Answers() < before+10; {
		if time.Now().After(end) {
			return fmt.Errorf("everything is mended, and nothing was answered in %s", l.patience())
		}
		if err := l.Pass(0); err != nil {
			return err
		}
	}
	return nil
}

// Settle waits until one node serves and both copies are current, and says which.
func (l *Lab) Settle() (primary string, err error) {
	for end := time.Now().Add(l.patience()); ; {
		v, err := l.Look()
		if err != nil {
			return "", err
		}
		for _, name := range dataNodes {
			if n := v.Nodes[name]; n.Serves && n.Current && v.Nodes[script.Peer(name)].Current {
				return name, nil
			}
		}
		if time.Now().After(end) {
			return "", errors.Join(fmt.Errorf("not well after %s: %+v", l.patience(), v), l.violated())
		}
		if err := l.Pass(0); err != nil {
			return "", err
		}
	}
}

// Begin waits until all is well, and hands over to alpha, where every scenario
// begins.
func (l *Lab) Begin() error {
	switch primary, err := l.Settle(); {
	case err != nil || primary == script.Alpha:
		return err
	}
	if err := l.operator(script.Action{Verb: script.Switchover, Node: script.Alpha}); err != nil {
		return err
	}
	_, err := l.Settle()
	return err
}

// askFor is how long a node has for a status.
func (l *Lab) askFor() time.Duration { return askFor * time.Duration(l.speed.Slow) }

// patience bounds what is waited for at the beginning and the end.
func (l *Lab) patience() time.Duration { return patience * time.Duration(l.speed.Slow) }
