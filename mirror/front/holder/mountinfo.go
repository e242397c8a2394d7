package holder

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"
)

// Mount is one line of a mount table.
type Mount struct {
	Device string // "major:minor"
	Point  string // where it is mounted
	Type   string // file system type
	Source string
}

// ParseMountinfo reads the text of /proc/<pid>/mountinfo, described in
// proc_pid_mountinfo(5). Lines it does not understand are left out.
func ParseMountinfo(text []byte) []Mount {
	var found []Mount
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 2 {
			continue
		}
		found = append(found, Mount{Device: left[2], Point: unescape(left[4]), Type: right[0], Source: unescape(right[1])})
	}
	return found
}

// unescape undoes the kernel's \ooo for blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
