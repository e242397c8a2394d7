package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{4, 1, 2}, spread{2, 1, 4}},
		{[]float64{4, 1, 2, 3}, spread{2.5, 1, 4}},
		{[]float64{5, 4, 3, 2, 1}, spread{3, 2, 4}},
		{[]float64{1, 2, 3, 4, 5, 60}, spread{3.5, 2.25, 4.75}},
	} {
		if got := spreadOf(c.in); got != c.want {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
	if got := cell(nil); got != "–" {
		t.Errorf("nothing measured is shown as %q", got)
	}
}

func TestFigure(t *testing.T) {
	for in, want := range map[float64]string{0.123: "0.12", 9.999: "10.00", 12.34: "12.3", 345.6: "346", 9999: "9999", 23190: "23.2k", 136000: "136k"} {
		if got := figure(in); got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
}

func TestRatios(t *testing.T) {
	got := ratios([]float64{2, 3, 4}, []float64{1, 0, 2})
	if len(got) != 2 || got[0] != 2 || got[1] != 2 {
		t.Error(got)
	}
}

func TestParseStat(t *testing.T) {
	const line = "77 (a ) b (c) S 1 77 77 0 -1 4194304 100 0 0 0 123 45 7 8 20 0 5 0 99 1 1\n"
	if n, err := parseStat(line); err != nil || n != 168 {
		t.Errorf("%d, %v", n, err)
	}
	for _, bad := range []string{"", "77 (a) S 1 2", "77 a S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", strings.Replace(line, "123", "x", 1)} {
		if n, err := parseStat(bad); err == nil {
			t.Errorf("%q is taken for %d ticks", bad, n)
		}
	}
}

func TestParseFio(t *testing.T) {
	const report = `{"jobs":[{"error":0,"read":{"iops":0,"total_ios":0,"lat_ns":{"mean":0}},
		"write":{"iops":1000.5,"bw_bytes":4098048,"total_ios":3000,"lat_ns":{"mean":31000,"percentile":{"50.000000":1,"99.000000":90000}}}}]}`
	got, err := parseFio([]byte(report))
	if want := (sample{iops: 1000.5, mbps: 4.098048, mean: 31, p99: 90, ops: 3000}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "{}", strings.Replace(report, `"error":0`, `"error":5`, 1), strings.Replace(report, "3000", "0", 1), strings.Replace(report, "99.000000", "98", 1)} {
		if got, err := parseFio([]byte(bad)); err == nil {
			t.Errorf("%s is taken for %+v", bad, got)
		}
	}
}

func TestReplaceSection(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	say := func(w io.Writer) { io.WriteString(w, "new\n") } //nolint:errcheck // a buffer
	for _, c := range []struct{ before, after string }{
		{"a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n", "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n"},
		{"<!-- x:begin -->\n<!-- x:end -->", "<!-- x:begin -->\nnew\n<!-- x:end -->"},
		{"<!-- y:begin -->\n<!-- y:end -->", ""},
		{"<!-- x:begin -->\n", ""},
	} {
		if err := os.WriteFile(file, []byte(c.before), 0o600); err != nil {
			t.Fatal(err)
		}
		err := replaceSection(file, "x", say)
		if c.after == "" {
			if c.after = c.before; !errors.Is(err, errNoSection) {
				t.Errorf("%q: %v", c.before, err)
			}
		} else if err != nil {
			t.Errorf("%q: %v", c.before, err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != c.after {
			t.Errorf("%q became %q, %v", c.before, got, err)
		}
	}
}

func TestChosen(t *testing.T) {
	if got, err := chosen([]string{"1m-write-qd8"}); err != nil || len(got) != 1 || got[0].bytes != 1<<20 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := chosen([]string{"nosuch"}); err == nil {
		t.Error("a workload that is not there was chosen")
	}
}

func TestSameFile(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, f := range []string{a, b} {
		if err := fillImage(f, 3<<20+512); err != nil {
			t.Fatal(err)
		}
	}
	if err := sameFile(a, b); err != nil {
		t.Error(err)
	}
	f, err := os.OpenFile(b, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), 3<<20+100); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if sameFile(a, b) == nil {
		t.Error("copies that differ are taken for equal")
	}
	if err := os.Truncate(b, 3<<20); err != nil {
		t.Fatal(err)
	}
	if sameFile(a, b) == nil {
		t.Error("a shorter copy is taken for equal")
	}
}

func TestOutageIn(t *testing.T) {
	epoch := time.Unix(1000, 0)
	at := func(ms ...int) (out []time.Time) {
		for _, m := range ms {
			out = append(out, epoch.Add(time.Duration(m)*time.Millisecond))
		}
		return out
	}
	one := func(ms int) time.Time { return at(ms)[0] }
	var steadily []int
	for m := 700; m <= 2000; m += 10 {
		steadily = append(steadily, m)
	}
	answers := at(append([]int{0, 40, 80, 100}, steadily...)...)
	for _, c := range []struct {
		what             string
		answers          []time.Time
		began, came, now time.Time
		gap              int
		over             bool
	}{
		{"in the middle of it", answers[:4], one(90), one(110), one(500), 20, false},
		{"just served again", answers[:8], one(90), one(110), one(740), 600, false},
		{"over", answers, one(90), one(110), one(2010), 600, true},
		{"silent again", answers, one(90), one(110), one(2400), 600, false},
		{"came late", answers, one(90), one(1500), one(2010), 600, false},
		{"nothing since", answers[:2], one(90), one(110), one(2000), 0, false},
	} {
		gap, over := outageIn(c.answers, c.began, c.came, c.now)
		if gap.wait != time.Duration(c.gap)*time.Millisecond || over != c.over {
			t.Errorf("%s: %s, %v", c.what, gap.wait, over)
		}
	}
}

func TestOptions(t *testing.T) {
	good := options{reps: 1, seconds: 1, mib: 64, network: 10, media: []string{"tmpfs"}}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*options){
		"no repetition": func(o *options) { o.reps = 0 },
		"no time":       func(o *options) { o.seconds = 0 },
		"tiny":          func(o *options) { o.mib = 1 },
		"no network":    func(o *options) { o.network = 255 },
		"nowhere":       func(o *options) { o.media = nil },
		"both":          func(o *options) { o.quick, o.full = true, true },
	} {
		o := good
		spoil(&o)
		if o.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := newMedium("floppy", &good); err == nil {
		t.Error("an unknown medium is accepted")
	}
}

func TestBoxes(t *testing.T) {
	for _, c := range []struct{ all, near, far []int }{
		{[]int{0}, []int{0}, []int{0}},
		{[]int{0, 1}, []int{0}, []int{1}},
		{[]int{1, 4, 6}, []int{1, 4}, []int{6}},
		{[]int{0, 2, 5, 900}, []int{0, 2}, []int{5, 900}},
	} {
		all, near, far := set(c.all), set(c.near), set(c.far)
		if a, b := halves(&all); a.set != near || b.set != far || !a.some || !b.some {
			t.Errorf("%v: %v and %v", c.all, a, b)
		}
	}
}

func set(cpus []int) (s unix.CPUSet) {
	for _, cpu := range cpus {
		s.Set(cpu)
	}
	return s
}

// What is started in a box has the processors of the box, and the thread that
// started it has all of them again.
func TestInBox(t *testing.T) {
	near, far, err := boxes()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for _, b := range []box{near, far, {set: before}} {
		cmd := exec.Command("sleep", "60")
		if err := b.start(cmd.Start); err != nil {
			t.Fatal(err)
		}
		var got unix.CPUSet
		err := errors.Join(unix.SchedGetaffinity(cmd.Process.Pid, &got), unix.SchedGetaffinity(0, &after), cmd.Process.Kill())
		if ended := cmd.Wait(); ended == nil {
			t.Error("it ended by itself")
		}
		if err != nil || got != b.set || after != before {
			t.Errorf("%v has %v, this thread %v: %v", b, got, after, err)
		}
	}
}
