package recorder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hapair/agent/recorder/story"
)

// world is a few recorders that reach each other, each with a clock of its own.
type world struct {
	t   *testing.T
	dir string

	mu    sync.Mutex
	nodes map[string]*Recorder
	skew  map[string]time.Duration
	cut   map[string]bool
	conns map[net.Conn]string // to whom
}

func newWorld(t *testing.T) *world {
	return &world{t: t, dir: t.TempDir(), nodes: map[string]*Recorder{}, skew: map[string]time.Duration{}, cut: map[string]bool{}, conns: map[net.Conn]string{}}
}

var errCut = errors.New("no way there")

func (w *world) dial(from, to string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.nodes[to]
	if r == nil || w.cut[from] || w.cut[to] || w.cut[from+to] {
		return nil, errCut
	}
	a, b := net.Pipe()
	w.conns[a], w.conns[b] = from+to, from+to
	go r.Serve(from, b)
	return a, nil
}

// start brings a node up, with what it left on disk.
func (w *world) start(node string, skew time.Duration) *Recorder {
	w.t.Helper()
	var others []string
	for _, n := range []string{"alpha", "beta", "gamma"} {
		if n != node {
			others = append(others, n)
		}
	}
	r, err := New(Config{Self: node, Others: others, Dir: filepath.Join(w.dir, node), Now: func() time.Time { return time.Now().Add(skew) },
		Dial: func(_ context.Context, to string) (net.Conn, error) { return w.dial(node, to) }})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := r.AwaitLoaded(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.nodes[node], w.skew[node] = r, skew
	delete(w.cut, node)
	w.mu.Unlock()
	r.Start()
	return r
}

// sever breaks all streams of a node, or of a pair of them.
func (w *world) sever(what ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range what {
		w.cut[x] = true
		for c, way := range w.conns {
			if strings.Contains(way, x) {
				c.Close() //nolint:errcheck // cut
			}
		}
	}
}

// stop ends a node in order; kill would leave its goroutines in the bubble.
func (w *world) stop(node string) {
	w.sever(node)
	if err := w.nodes[node].Close(w.t.Context()); err != nil {
		w.t.Error(err)
	}
	w.mu.Lock()
	delete(w.nodes, node)
	w.mu.Unlock()
}

func (w *world) stopAll() {
	for _, n := range []string{"alpha", "beta", "gamma"} {
		if w.nodes[n] != nil {
			w.stop(n)
		}
	}
}

func (w *world) says(node, text string) {
	w.nodes[node].Add(time.Now().Add(w.skew[node]), "role", "pg", text, nil)
}

// texts are a node's story in one line.
func texts(r *Recorder) string {
	var out []string
	for _, e := range r.Look().Entries {
		out = append(out, e.Text)
	}
	return strings.Join(out, " ")
}

func (w *world) tells(node, want string) {
	w.t.Helper()
	if got := texts(w.nodes[node]); got != want {
		w.t.Errorf("%s tells %q, want %q", node, got, want)
	}
}

func settle() {
	time.Sleep(2 * time.Second)
	synctest.Wait()
}

// The clock of one node is an hour slow: what it does after it heard of the
// other is told after that, on both, and how slow it is is known. When one is gone the
// other tells the story to its end.
func TestSurvivorTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("alpha", 0)
		b := w.start("beta", -time.Hour)
		settle()
		for i := range 3 {
			w.says("alpha", fmt.Sprint("a", i))
			settle()
			w.says("beta", fmt.Sprint("b", i))
			settle()
		}
		w.says("alpha", "last")
		synctest.Wait()
		w.stop("alpha")
		w.says("beta", "promoted")
		settle()
		w.tells("beta", "a0 b0 a1 b1 a2 b2 last promoted")
		s := b.Look()
		src := s.Sources[1]
		if src.Node != "alpha" || src.Following || src.Err == nil || src.Last.Text != "last" || len(s.Gaps) != 0 {
			t.Errorf("%+v, gaps %v", src, s.Gaps)
		}
		if d := src.Skew - time.Hour; !src.SkewKnown || d.Abs() > time.Millisecond {
			t.Errorf("alpha is said to be ahead by %v", src.Skew)
		}
		if e := s.Entries[0]; e.Here().Sub(b.cfg.Now()).Abs() > time.Minute {
			t.Errorf("by the clock of beta %s, now %s", e.Here(), b.cfg.Now())
		}
		w.stopAll()
	})
}

// What happened apart is told to the other when they meet again, after a restart
// too, and only once; a new life does not begin before an old one.
func TestCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("alpha", 0)
		w.says("alpha", "a1")
		settle()
		w.start("beta", 0)
		settle()
		time.Sleep(retryMost)
		w.tells("beta", "a1")
		w.sever("beta")
		w.says("alpha", "a2")
		w.says("beta", "b1")
		w.stop("beta")
		w.start("beta", -24*time.Hour) // its battery is dead
		w.says("beta", "b2")
		w.says("alpha", "a3")
		time.Sleep(2 * retryMost)
		settle()
		got := texts(w.nodes["alpha"])
		at := func(text string) int { return strings.Index(got, text) }
		if len(got) != len("a1 a2 a3 b1 b2") || at("a1") != 0 || at("a2") < 0 || at("a2") > at("a3") || at("b1") < 0 || at("b1") > at("b2") {
			t.Errorf("alpha tells %q", got)
		}
		w.tells("beta", got)
		for _, r := range w.nodes {
			if g := r.Look().Gaps; len(g) > 0 {
				t.Errorf("%s: gaps %v", r.cfg.Self, g)
			}
		}
		w.stopAll()
	})
}

// A third node passes on what two have no stream for, and gives a node back what
// it lost with its disk.
func TestByTheWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, n := range []string{"alpha", "beta", "gamma"} {
			w.start(n, 0)
		}
		settle()
		w.sever("alphabeta", "betaalpha")
		w.says("alpha", "a1")
		settle()
		w.tells("beta", "a1")
		w.stop("alpha")
		if err := os.RemoveAll(filepath.Join(w.dir, "alpha")); err != nil {
			t.Fatal(err)
		}
		w.start("alpha", 0)
		settle()
		w.tells("alpha", "a1")
		w.stopAll()
	})
}

// A release without a record is asked seldom, and at once when something was
// heard of it.
func TestOlderRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		r, err := New(Config{Self: "alpha", Others: []string{"beta"}, Dir: t.TempDir(), Now: time.Now, Foreign: func(err error) bool { return errors.Is(err, errCut) },
			Dial: func(context.Context, string) (net.Conn, error) { asked++; return nil, errCut }})
		if err != nil {
			t.Fatal(err)
		}
		r.Start()
		time.Sleep(retryOlder - time.Second)
		synctest.Wait()
		if s := r.Look().Sources[1]; asked != 1 || !s.Older || s.Following {
			t.Errorf("asked %d times, %+v", asked, s)
		}
		r.Retry()
		synctest.Wait()
		if asked != 2 {
			t.Errorf("asked %d times", asked)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// solo is one recorder without others; what troubles it is collected.
func solo(t *testing.T, dir string) (*Recorder, *[]string) {
	t.Helper()
	var troubles []string
	var mu sync.Mutex
	var r *Recorder
	ready := make(chan struct{})
	r, err := New(Config{Self: "alpha", Dir: dir, Now: time.Now, Trouble: func(text string) {
		<-ready
		mu.Lock()
		defer mu.Unlock()
		troubles = append(troubles, text)
		r.Add(time.Now(), "problem", "", text, nil)
	}})
	close(ready)
	if err != nil {
		t.Fatal(err)
	}
	return r, &troubles
}

// diskless is one whose disk hangs from the beginning.
func diskless(t *testing.T) *Recorder {
	r, err := build(Config{Self: "alpha", Others: []string{"beta"}, Dir: "/nowhere", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func closed(t *testing.T, r *Recorder) {
	t.Helper()
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Lives follow each other in one file; a torn end costs what it tore, and the
// next life does not write behind it.
func TestLivesOnDisk(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		r, _ := solo(t, dir)
		r.Add(time.Now(), "agent", "", fmt.Sprint("life", i), nil)
		closed(t, r)
	}
	file := filepath.Join(dir, "alpha", "00000001.rec")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b[:len(b)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	for i := 3; i < 5; i++ {
		r, troubles := solo(t, dir)
		if err := r.AwaitLoaded(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.Add(time.Now(), "agent", "", fmt.Sprint("life", i), nil)
		if i == 4 && (texts(r) != "life0 life1 life3 life4" || len(*troubles) > 0) {
			t.Errorf("%q, troubles %q", texts(r), *troubles)
		}
		closed(t, r)
	}
}

// The files are bounded, and the newest are kept.
func TestFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	r, _ := solo(t, dir)
	text := strings.Repeat("x", 4000)
	const n = 1500 // 6 MB
	for i := range n {
		r.Add(time.Now(), "k", "", fmt.Sprint(i, " ", text), nil)
		for len(r.disk.in) > queuedEntries/2 {
			time.Sleep(time.Millisecond)
		}
	}
	closed(t, r)
	files, err := r.disk.series["alpha"].files()
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, f := range files {
		total += f.size
	}
	if total > filesBytes+batchEntries*5000 || total < filesBytes/2 {
		t.Errorf("%d bytes in %d files", total, len(files))
	}
	again, _ := solo(t, dir)
	if err := again.AwaitLoaded(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := again.Look()
	if last := s.Entries[len(s.Entries)-1]; !strings.HasPrefix(last.Text, fmt.Sprint(n-1)) || len(s.Gaps) > 0 || s.Disk.Dropped > 0 {
		t.Errorf("the last is %.10q, gaps %v, %+v", last.Text, s.Gaps, s.Disk)
	}
	closed(t, again)
}

// Memory is bounded too.
func TestMemoryIsBounded(t *testing.T) {
	r, _ := solo(t, t.TempDir())
	for range KeptEntries + Arrivals + 10 {
		r.Add(time.Now(), "k", "", "x", nil)
	}
	r.mu.Lock()
	kept, arrivals := len(r.mu.kept["alpha"]), len(r.mu.arrivals)
	r.mu.Unlock()
	if kept != KeptEntries || arrivals != Arrivals {
		t.Errorf("%d kept, %d arrivals", kept, arrivals)
	}
	closed(t, r)
}

// A disk that fails is told of, holds nothing up, and what it lacks is said once
// it works.
func TestDiskFailsAndRecovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "record")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r, troubles := solo(t, dir)
		r.Add(time.Now(), "k", "", "lost", nil)
		settle()
		if len(*troubles) != 1 || !strings.Contains((*troubles)[0], "fails") || r.Look().Disk.Err == nil {
			t.Fatalf("%q, %+v", *troubles, r.Look().Disk)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retryAfter)
		r.Add(time.Now(), "k", "", "kept", nil)
		settle()
		if len(*troubles) != 2 || !strings.HasPrefix((*troubles)[1], "2 entries") || r.Look().Disk.Err != nil {
			t.Errorf("%q, %+v", *troubles, r.Look().Disk)
		}
		if !strings.HasPrefix(texts(r), "lost ") {
			t.Errorf("memory forgot: %q", texts(r))
		}
		closed(t, r)
	})
}

// A disk that hangs holds up nobody: not Add, not Look, not Close.
func TestDiskHangs(t *testing.T) {
	r := diskless(t)
	for range queuedEntries + 7 {
		r.Add(time.Now(), "k", "", "x", nil)
	}
	if d := r.Look().Disk; d.Dropped != 7 || d.Waiting != queuedEntries || d.Loaded {
		t.Errorf("%+v", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Close(ctx); err == nil {
		t.Error("closed as if all was written")
	}
}

// The clock of the other is heard from what it asks, and from what it answers,
// entries or not.
func TestClocksAreHeard(t *testing.T) {
	later := story.At(time.Now().Add(24 * time.Hour))
	for name, drive := range map[string]func(*Recorder, net.Conn){
		"ask":    func(r *Recorder, c net.Conn) { r.Serve("beta", c) },
		"answer": func(r *Recorder, c net.Conn) { r.hearing("beta", r.mu.sources["beta"], c) }, //nolint:errcheck // it ends
	} {
		r := diskless(t)
		here, there := net.Pipe()
		go func() {
			if _, err := fmt.Fprintf(there, "{\"h\":%d}\n", later); err != nil {
				t.Error(err)
			}
			there.Close() //nolint:errcheck // said
		}()
		drive(r, here)
		if got := story.Stamp(r.Stamp()); got < later {
			t.Errorf("%s: %s, said was %s", name, got, later)
		}
	}
}

// Nonsense on the wire ends the stream, and nothing else.
func FuzzServe(f *testing.F) {
	f.Add([]byte("{\"have\":[{\"n\":\"alpha\",\"l\":1,\"s\":[{\"a\":1,\"b\":2}]}],\"h\":1,\"sent\":2}\n"), []byte("{\"h\":12}\n{\"e\":{\"h\":5,\"n\":\"beta\",\"l\":1,\"s\":1,\"k\":\"k\",\"t\":\"t\"}}\n"))
	f.Add([]byte("{\"have\":[{\"s\":[{\"a\":5,\"b\":2}]}]}\n{}\n"), []byte("{\"e\":{\"h\":9223372036854775807,\"n\":\"beta\",\"l\":1,\"s\":1}}\n"))
	f.Add([]byte("x\n"), []byte("{\"e\":null}\n"))
	f.Fuzz(func(t *testing.T, asked, told []byte) {
		r := diskless(t)
		r.Add(time.Now(), "k", "", "x", nil)
		drive := func(b []byte, serve func(net.Conn)) {
			here, there := net.Pipe()
			go func() {
				there.Write(b) //nolint:errcheck // it may be closed
				there.Close()  //nolint:errcheck // as above
			}()
			go func() {
				for b := make([]byte, 4096); ; {
					if _, err := there.Read(b); err != nil {
						return
					}
				}
			}()
			serve(here)
			here.Close() //nolint:errcheck // it may be
		}
		drive(asked, func(c net.Conn) { r.Serve("beta", c) })
		drive(told, func(c net.Conn) {
			if _, err := r.hearing("beta", r.mu.sources["beta"], c); err == nil {
				t.Error("a stream ended without a word")
			}
		})
		if story.Stamp(r.Stamp()) > 2*story.MaxStamp {
			t.Error("the clock ran away")
		}
	})
}
