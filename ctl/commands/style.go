package commands

import (
	"fmt"
	"strings"
	"time"
)

// style colours text, or not.
type style struct{ on bool }

func (s style) paint(code, text string) string {
	if !s.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) bold(t string) string { return s.paint("1", t) }
func (s style) good(t string) string { return s.paint("32", t) }
func (s style) warn(t string) string { return s.paint("33", t) }
func (s style) bad(t string) string  { return s.paint("1;31", t) }
func (s style) dim(t string) string  { return s.paint("2", t) }

// disk colours a disk state.
func (s style) disk(state, text string) string {
	switch state {
	case "UpToDate":
		return s.good(text)
	case "Consistent", "Attaching", "DUnknown":
		return s.warn(text)
	}
	return s.bad(text)
}

// pad fills up with blanks before colours are put on.
func pad(text string, width int) string {
	if n := width - len([]rune(text)); n > 0 {
		return text + strings.Repeat(" ", n)
	}
	return text
}

// clean takes control characters out of foreign text, so that nothing another
// program said can move the cursor.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

// bytesText writes a size in binary units: 100 GiB, 1.5 MiB, 512 B.
func bytesText(n int64) string {
	return scaled(float64(n), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}, " ")
}

// rateText writes bytes per second in decimal units, as networks count.
func rateText(perS float64) string {
	return scaled(perS, 1000, []string{"B/s", "kB/s", "MB/s", "GB/s"}, " ")
}

// countText writes a count: 12.4k, 980.
func countText(n float64) string { return scaled(n, 1000, []string{"", "k", "M", "G"}, "") }

func scaled(v, step float64, units []string, gap string) string {
	i := 0
	for v >= step && i < len(units)-1 {
		v /= step
		i++
	}
	text := fmt.Sprintf("%.1f", v)
	if i == 0 || v >= 100 || strings.HasSuffix(text, ".0") {
		text = fmt.Sprintf("%.0f", v)
	}
	return text + gap + units[i]
}

// microsText writes a latency: 210 us, 1.4 ms, 2.1 s.
func microsText(us float64) string {
	return scaled(us, 1000, []string{"us", "ms", "s"}, " ")
}

// secondsText writes a time roughly: 41s, 12m, 5h 20m, 3d.
func secondsText(s int64) string {
	d := time.Duration(s) * time.Second
	switch {
	case s < 120:
		return fmt.Sprintf("%ds", s)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// bar draws progress.
func bar(done, total int64, width int) string {
	n := 0
	if total > 0 {
		n = int(float64(width) * float64(done) / float64(total))
	}
	n = max(0, min(n, width))
	return "[" + strings.Repeat("#", n) + strings.Repeat("-", width-n) + "]"
}

// millisText is a time as people read it.
func millisText(ms int64) string {
	return (time.Duration(ms) * time.Millisecond).Round(100 * time.Millisecond).String()
}
