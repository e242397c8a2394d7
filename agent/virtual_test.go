package main

import "testing"

func TestVirtual(t *testing.T) {
	for text, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n": true, "flags\t\t: fpu vme lahf_lm\n": false,
		"model name\t: a hypervisor\nflags\t\t: fpu\n": false, "Features\t: fp asimd\n": false, "": false,
	} {
		if got := virtual([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
