package netns

import (
	"fmt"
	"os"
	"testing"

	"hapair/test/lab"
)

func TestMain(m *testing.M) {
	lab.Reexec()
	if len(os.Args) > 1 && programs[os.Args[1]] != nil {
		if err := programs[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// programs are what the test's own program is on the nodes, by its first word.
var programs = map[string]func(args []string) error{
	proberWord: runProber, registerWord: runRegisters, exerciserWord: runExerciser, pourWord: runPour,
}
