package netns

import (
	"fmt"
	"os"
	"testing"

	"hapair/test/lab"
)

func TestMain(m *testing.M) {
	lab.Reexec()
	if len(os.Args) > 1 && os.Args[1] == proberWord {
		if err := runProber(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "prober:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == registerWord {
		if err := runRegisters(os.Args[2:]); err != nil {
			os.Exit(1) // it has said why
		}
		return
	}
	os.Exit(m.Run())
}
