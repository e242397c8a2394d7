package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is one run of the comparison.
type report struct {
	o             *options
	loads         []workload
	media         []measured
	before, after string // load of the machine
	took          time.Duration
}

func (r *report) write(w io.Writer) {
	fmt.Fprintf(w, "%s, %s; %d processors (%s), Linux %s; load before %s, after %s.\n", versionOf("fio"), versionOf("qemu-storage-daemon"),
		runtime.NumCPU(), processor(), kernel(), r.before, r.after)
	apart := "quartiles"
	if r.o.reps < 5 {
		apart = "smallest and largest"
	}
	fmt.Fprintf(w, "%d repetitions of %d s, systems in turn, volumes of %d MiB, written once before; median (%s). The run took %s.\n",
		r.o.reps, r.o.seconds, r.o.mib, apart, r.took.Round(time.Second))
	fmt.Fprintln(w, r.placed())
	for i := range r.media {
		r.media[i].write(w, r.loads)
	}
}

// placed says which processors were whose.
func (r *report) placed() string {
	if r.o.mixed {
		return "Everybody used all processors."
	}
	return "The client and the first node had one half of the processors, as one box; the second node had the other."
}

func (g *measured) write(w io.Writer, loads []workload) {
	fmt.Fprintf(w, "\n### Copies in %s\n\n", g.medium.what)
	fmt.Fprintln(w, "| workload | system | IOPS | MB/s | mean, us | p99, us | server CPU, s per 10k ops |")
	fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|")
	for _, l := range loads {
		for i, name := range g.systems {
			s := g.samples[l.title][name]
			title := l.title
			if i > 0 {
				title = ""
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", title, name,
				cell(each(s, func(s sample) float64 { return s.iops })), cell(each(s, func(s sample) float64 { return s.mbps })),
				cell(each(s, func(s sample) float64 { return s.mean })), cell(each(s, func(s sample) float64 { return s.p99 })),
				cell(each(s, func(s sample) float64 { return s.cpu10k })))
		}
	}
	g.writeRatios(w, loads)
}

// writeRatios compares the last system, hapair, with the others.
func (g *measured) writeRatios(w io.Writer, loads []workload) {
	us := g.systems[len(g.systems)-1]
	fmt.Fprintf(w, "\nRatios of neighbours in one repetition; IOPS above 1 and the others below 1 speak for %s:\n\n", us)
	fmt.Fprintln(w, "| workload | beside | IOPS | p99 | server CPU per op |")
	fmt.Fprintln(w, "|---|---|--:|--:|--:|")
	for _, l := range loads {
		for i := len(g.systems) - 2; i >= 0; i-- {
			a, b := g.samples[l.title][us], g.samples[l.title][g.systems[i]]
			ratio := func(of func(sample) float64) string { return cell(ratios(each(a, of), each(b, of))) }
			title := l.title
			if i < len(g.systems)-2 {
				title = ""
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", title, g.systems[i], ratio(func(s sample) float64 { return s.iops }),
				ratio(func(s sample) float64 { return s.p99 }), ratio(func(s sample) float64 { return s.cpu10k }))
		}
	}
}

// cell is "median (low–high)".
func cell(figures []float64) string {
	if len(figures) == 0 {
		return "–"
	}
	s := spreadOf(figures)
	return fmt.Sprintf("%s (%s–%s)", figure(s.median), figure(s.low), figure(s.high))
}

// figure has three digits that count, and a k for thousands from ten thousand on.
func figure(f float64) string {
	switch {
	case f >= 1e5:
		return fmt.Sprintf("%.0fk", f/1e3)
	case f >= 1e4:
		return fmt.Sprintf("%.1fk", f/1e3)
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// errNoSection says that a file has no place for a section.
var errNoSection = errors.New("there is no such section")

// replaceSection replaces what stands between "<!-- NAME:begin -->" and
// "<!-- NAME:end -->" in a file.
func replaceSection(file, name string, write func(io.Writer)) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->"
	head, rest, ok1 := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s: lines %q and %q: %w", file, strings.TrimSpace(begin), end, errNoSection)
	}
	out := bytes.NewBufferString(head + begin)
	write(out)
	out.WriteString(end + tail)
	return os.WriteFile(file, out.Bytes(), 0o644)
}

func machineLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
