package bubble

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"hapair/failover/ledger"
)

// The nodes.
const (
	alpha   = "alpha"
	beta    = "beta"
	witness = "witness"
)

var (
	allNodes  = []string{alpha, beta, witness}
	dataNodes = []string{alpha, beta}
)

func other(node string) string {
	switch node {
	case alpha:
		return beta
	case beta:
		return alpha
	}
	return ""
}

// setup is how a pair is configured.
type setup struct {
	timing    ledger.Timing
	silence   time.Duration // of the mirror link
	preferred string
	// fencing: two voters that fence each other, no witness. delay is what the
	// Secondary waits.
	fencing bool
	delay   time.Duration
	manual  bool // two voters, and neither fencing nor a witness
}

// nodes are those that there are.
func (s *setup) nodes() []string {
	if s.fencing || s.manual {
		return dataNodes
	}
	return allNodes
}

// usual are the defaults of a configuration without timing.
func usual() setup {
	return setup{timing: ledger.Timing{Margin: 60 * time.Millisecond}, silence: 300 * time.Millisecond}
}

// World is a pair with its witness, on virtual time.
type World struct {
	t      testing.TB
	seed   int64
	setup  setup
	dir    string
	start  time.Time
	fabric *fabric
	book   *book
	boxes  map[string]*box
	log    *zap.Logger
	lines  lines
	done   chan struct{}
	wg     sync.WaitGroup

	mu       sync.Mutex
	rng      *rand.Rand
	boots    map[string]*boot
	stopping map[string]*boot // about to stop in order
	old      []*boot          // whose remains are still being cleared away
	record   ledger.Record
	pace     time.Duration
	gun      gun  // what nodes fence each other with
	quiet    bool // the applications rest
	split    bool // an operator forced a node: two may serve, each with writes of its own
	failed   int
}

// Run makes a world in a bubble of its own, has fn do things to it, and takes
// it down. Nothing is broken yet and nobody has been promoted when fn begins.
func Run(t *testing.T, seed int64, fn func(w *World)) {
	run(t, seed, usual(), func(w *World) {
		for _, n := range w.setup.nodes() {
			w.boot(n)
		}
		fn(w)
	})
}

// run is Run for a pair that is configured and has not been switched on.
func run(t *testing.T, seed int64, s setup, fn func(w *World)) {
	dir := scratch(t)
	defer forgive(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir, seed, s)
		defer w.close()
		w.wg.Go(w.watch)
		fn(w)
	})
}

// leaked are the goroutines that may outlive a world: raft does not answer every
// future when it is shut down, and a transfer of its leadership may hang.
var leaked = []string{
	"hapair/failover/ledger.(*group).await.func1",
	"github.com/hashicorp/raft.(*Raft).leadershipTransfer",
	"github.com/hashicorp/raft.(*Raft).leaderLoop.func2",
}

// forgive lets a bubble end in which nothing but that was left.
func forgive(t testing.TB) {
	r := recover()
	if r == nil {
		return
	}
	all := make([]byte, 16<<20)
	all = all[:runtime.Stack(all, true)]
	left := 0
	for g := range strings.SplitSeq(string(all), "\n\n") {
		head, _, _ := strings.Cut(g, "\n")
		if !strings.Contains(head, "synctest bubble") {
			continue
		}
		if left++; !slices.ContainsFunc(leaked, func(name string) bool { return strings.Contains(g, name) }) {
			panic(r)
		}
	}
	if left == 0 {
		panic(r)
	}
	t.Logf("%d goroutines of raft were left", left)
}

// scratch prefers memory: the bubble's time stands still while a disk works.
func scratch(t testing.TB) string {
	if dir, err := os.MkdirTemp("/dev/shm", "hapair-bubble-"); err == nil {
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Log(err)
			}
		})
		return dir
	}
	return t.TempDir()
}

func newWorld(t testing.TB, dir string, seed int64, s setup) *World {
	w := &World{t: t, seed: seed, setup: s, dir: dir, start: time.Now(), fabric: newFabric(seed), boxes: map[string]*box{}, boots: map[string]*boot{}, stopping: map[string]*boot{},
		done: make(chan struct{}), rng: rand.New(rand.NewSource(seed)), pace: 40 * time.Millisecond}
	w.book = newBook(w.failf)
	enc := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{LevelKey: "l", MessageKey: "m", EncodeLevel: zapcore.CapitalLevelEncoder, EncodeDuration: zapcore.StringDurationEncoder})
	level := zapcore.InfoLevel
	if os.Getenv("HAPAIR_BUBBLE_LOG") == "debug" {
		level = zapcore.DebugLevel
	}
	w.lines.start = w.start
	w.log = zap.New(zapcore.NewCore(enc, &w.lines, level))
	for _, n := range allNodes {
		x, err := newBox(dir, n, seed, 0.98+0.04*w.rng.Float64())
		if err != nil {
			t.Fatal(err)
		}
		w.boxes[n] = x
		if p := other(n); p != "" {
			if err := errors.Join(format(x, p), x.powerFlush()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

func (w *World) random() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.Int63()
}

// think is the longest an application waits between two requests.
func (w *World) think() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pace
}

// quick sets the longest an application waits between two requests.
func (w *World) quick(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pace = d
}

func (w *World) hush(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quiet = on
}

func (w *World) resting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.quiet
}

// diverges says that from now on each node may serve for itself: the laws hold on
// each side, and are broken seen from both.
func (w *World) diverges() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.split = true
}

func (w *World) now() time.Duration { return time.Since(w.start) }

// notef keeps what the test does among the log's lines.
func (w *World) notef(format string, args ...any) {
	w.log.Info("=== " + fmt.Sprintf(format, args...))
}

// failf notes a violation. It may be called from anywhere.
func (w *World) failf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.log.Error("!!! " + text)
	w.mu.Lock()
	if w.split {
		w.mu.Unlock()
		return
	}
	w.failed++
	n := w.failed
	w.mu.Unlock()
	if n <= 5 {
		w.t.Errorf("seed %d, at %v: %s", w.seed, w.now(), text)
	}
}

func (w *World) violated() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed > 0
}

func (w *World) get(node string) *boot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.boots[node]
}

func (w *World) up(node string) bool { return w.get(node) != nil }

// boot starts the agent of a node whose last one has ended.
func (w *World) boot(node string) {
	w.mu.Lock()
	old := slices.Clone(w.old)
	w.mu.Unlock()
	for _, b := range old {
		if b.node == node {
			<-b.gone
			b.port.bury()
		}
	}
	w.notef("%s starts", node)
	w.fabric.powerOn(node)
	b := &boot{w: w, box: w.boxes[node], node: node, peer: other(node), log: w.log.With(zap.String("node", node)), gone: make(chan struct{})}
	if err := b.start(); err != nil {
		w.t.Fatalf("seed %d, at %v: start %s: %v", w.seed, w.now(), node, err)
	}
	w.mu.Lock()
	w.old = slices.DeleteFunc(w.old, func(b *boot) bool { return b.node == node })
	w.boots[node] = b
	w.mu.Unlock()
}

// take removes the running agent of a node, nil when there is none.
func (w *World) take(node string) *boot {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.boots[node]
	if b != nil {
		delete(w.boots, node)
		w.old = append(w.old, b)
	}
	return b
}

// crash kills the agent of a node, or with power cuts the power of its box.
func (w *World) crash(node string, power bool) {
	b := w.take(node)
	if b == nil {
		w.strike(node, power)
		return
	}
	if power {
		w.fabric.crash(node) // first: who stands still, and wakes to be ended, says nothing more
	}
	w.freeze(b, false)
	w.notef("%s crashes, power cut: %t", node, power)
	w.judgeLoss(node, power)
	w.troubled(node)
	b.kill(power)
}

// strike ends an agent that is about to stop in order.
func (w *World) strike(node string, power bool) {
	w.mu.Lock()
	b := w.stopping[node]
	delete(w.stopping, node)
	w.mu.Unlock()
	if b == nil {
		return
	}
	w.notef("%s crashes while it stops, power cut: %t", node, power)
	w.judgeLoss(node, power)
	w.troubled(node)
	b.dies(power)
	_ = b.ledger.Close() // nothing is decided any more; a dead process's errors are nobody's
}

// stop ends the agent of a node in order.
func (w *World) stop(node string) error {
	b := w.take(node)
	if b == nil {
		return nil
	}
	w.notef("%s stops in order", node)
	w.mu.Lock()
	w.boxes[node].trouble = time.Time{} // a stop in order is no trouble
	w.stopping[node] = b
	w.mu.Unlock()
	began := time.Now()
	err := b.stop()
	w.mu.Lock()
	delete(w.stopping, node)
	w.mu.Unlock()
	w.notef("%s has stopped after %v: %v", node, time.Since(began), err)
	return err
}

// pause freezes the process of a node, or lets it go on.
func (w *World) pause(node string, on bool) {
	w.mu.Lock()
	b := w.boots[node]
	w.mu.Unlock()
	if b != nil {
		w.freeze(b, on)
	}
}

func (w *World) freeze(b *boot, on bool) {
	w.mu.Lock()
	was := b.frozen
	b.frozen = on
	w.mu.Unlock()
	if was == on {
		return
	}
	w.notef("%s stands still: %t", b.node, on)
	w.troubled(b.node)
	if !on {
		b.box.clock.freeze(false)
	}
	if b.door != nil {
		b.door.freeze(on)
	}
	for _, h := range b.disks {
		h.hang(on)
	}
	if on {
		b.box.clock.freeze(true)
	}
	w.fabric.pause(b.node, on)
}

// switchover asks the node that is Primary to hand over.
func (w *World) switchover() error {
	p := w.primary()
	b := w.get(p)
	if b == nil {
		return nil
	}
	w.notef("switchover from %s to %s", p, other(p))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := b.control.Switchover(ctx, other(p), false)
	w.notef("switchover has ended: %v", err)
	return err
}

// close takes everything down and looks at what is left.
func (w *World) close() {
	w.mend()
	close(w.done)
	w.wg.Wait()
	for _, n := range w.setup.nodes() {
		w.crash(n, false)
	}
	w.mu.Lock()
	old := slices.Clone(w.old)
	w.mu.Unlock()
	for _, b := range old {
		<-b.gone
		b.port.bury()
	}
	time.Sleep(15 * time.Second) // memberlist's goroutines outlive its Shutdown by a call
	for _, x := range w.boxes {
		x.close()
	}
	w.t.Logf("seed %d: %v of virtual time, %v", w.seed, w.now().Round(time.Second), w.book)
	if w.t.Failed() {
		name := filepath.Join(os.TempDir(), fmt.Sprintf("hapair-bubble-%s-%d.log", strings.ReplaceAll(w.t.Name(), "/", "-"), w.seed))
		if err := os.WriteFile(name, w.lines.bytes(), 0o644); err != nil {
			w.t.Log(err)
		}
		w.t.Logf("log: %s", name)
	}
}
