package model

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// read returns a file's text; it also makes the file an input of the test, so
// that a cached result is not one of another model.
func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestEveryMutantIsRunAndTold: a rule without its mutant is a rule nobody checks.
func TestEveryMutantIsRunAndTold(t *testing.T) {
	script, safety := read(t, "check.sh"), read(t, "../../docs/safety.md")
	listed := exec.Command("./check.sh", "list")
	out, err := listed.Output()
	if err != nil {
		t.Fatalf("check.sh list: %v", err)
	}
	found := 0
	for _, file := range []string{"pair", "alone", "third", "voters", "tokens"} {
		for _, m := range regexp.MustCompile(`(?m)^#ifdef (M\d+)$`).FindAllStringSubmatch(read(t, file+".pml"), -1) {
			name := m[1]
			if name == "M11" { // no mutant: both ways are safe
				continue
			}
			found++
			if !strings.Contains("\n"+string(out), "\n"+name+" quick "+file+" ") {
				t.Errorf("%s of %s.pml is not run by check.sh", name, file)
			}
			if !regexp.MustCompile(`\| [^|]*\b` + name + `\b[^|]* \|`).MatchString(safety) {
				t.Errorf("docs/safety.md has no rule with %s", name)
			}
		}
	}
	if found < 20 || !strings.Contains(script, "spin") {
		t.Fatalf("%d mutants found", found)
	}
}

// TestModels searches the small plain models to their end and refutes each
// mutant. It takes two minutes of one core.
func TestModels(t *testing.T) {
	for tool, deb := range map[string]string{"spin": "spin", "gcc": "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: apt-get install %s", tool, deb)
		}
	}
	if testing.Short() {
		t.Skip("takes minutes")
	}
	out, err := exec.Command("./check.sh", "quick").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("check.sh quick: %v", err)
	}
}
