package fenceagent

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
)

// The exit codes of the fence agents' library.
const (
	exitOK        = 0
	exitFailed    = 1
	exitStatusOff = 2 // of status; of every other action: wrong arguments
)

// meaning says what an exit code of an action other than status means, and
// whether the device said no. The library has all these codes, and ends with 1
// whatever failed; agents without it use them.
var meaning = map[int]struct {
	text    string
	refused bool
}{
	1:  {"a generic error", false},
	2:  {"wrong arguments", true},
	3:  {"login denied", true},
	4:  {"connection lost", false},
	5:  {"timed out", false},
	6:  {"timed out waiting for it to be on", false},
	7:  {"timed out waiting for it to be off", false},
	8:  {"no status to be had: is the plug right?", false},
	9:  {"no status to be had from the HMC", false},
	10: {"a password is needed", true},
	11: {"the account may not do this", true},
	12: {"no such machine", true},
}

// power is what a device says of its node.
type power uint8

const (
	unclear power = iota
	isOff
	isOn
)

// judge takes the answer to status apart. OFF is exit code 2 and the word; either
// alone is not: 2 is also wrong arguments.
func judge(code int, printed []byte) (power, string) {
	on, off := states(printed)
	switch {
	case code == exitStatusOff && off && !on:
		return isOff, "its status is off"
	case code == exitOK && on && !off:
		return isOn, "its status is on"
	case code == exitStatusOff:
		return unclear, `its status ends with exit code 2 and does not say "Status: OFF"`
	}
	return unclear, fmt.Sprintf("its status ends with exit code %d: on or off would be known after 0 or 2", code)
}

// states finds the lines "Status: ON" and "Status: OFF".
func states(printed []byte) (on, off bool) {
	lines := bufio.NewScanner(bytes.NewReader(printed))
	for lines.Scan() {
		word, found := strings.CutPrefix(strings.TrimSpace(lines.Text()), "Status:")
		switch word = strings.TrimSpace(word); {
		case !found:
		case strings.EqualFold(word, "off"):
			off = true
		default:
			on = true // whatever it is, it is not off
		}
	}
	return on, off
}
