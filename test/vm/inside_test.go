package vm

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hapair/test/lab"
)

// networking are the modules for namespaces with bridges, and what is on those.
var networking = []string{"veth", "bridge", "macvlan", "8021q"}

// The service addresses' own tests on Debian's kernel: it has VLAN devices, which the
// kernel of a build machine need not have.
func TestVLAN(t *testing.T) {
	inside(t, "hapair/failover/vip", "^TestVLAN", "TestVLAN", "TestVLANVirtualMAC", "TestVLANSource", "TestVLANWithoutParent")
}

// All other tests of service addresses there, those of the helper that removes them too.
func TestAddressesOnDebian(t *testing.T) {
	for pkg, some := range map[string]string{"hapair/failover/vip": "TestSource", "hapair/failover/vip/deadman": "TestVirtualMACOfAnAgentThatIsGone"} {
		inside(t, pkg, ".", some)
	}
}

// inside runs tests of a package in a machine of their own, as root of it. Each must
// pass, none be skipped, and those that are named be among them.
func inside(t *testing.T, pkg, run string, named ...string) {
	t.Helper()
	o := options(t)
	o.Modules, o.Programs = networking, map[string]string{"inside.test": compiled(t, pkg)}
	out, err := alone(t, o, lab.Client).run(t.Context(), "/bin/inside.test", "-test.v", "-test.count=1", "-test.run", run)
	if err != nil {
		t.Errorf("%s: %v", pkg, err)
	}
	passed, bad := outcomes(out)
	for _, name := range named {
		if !passed[name] {
			bad = append(bad, name+" has not passed")
		}
	}
	if len(bad) > 0 {
		t.Errorf("%s: %s\n%s", pkg, strings.Join(bad, ", "), out)
	}
	o.Say("%s: %d tests and subtests passed", pkg, len(passed))
}

// compiled is the test program of a package, static and small.
func compiled(t *testing.T, pkg string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "inside.test")
	c := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", file, pkg)
	c.Env = append(c.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", c, err, bytes.TrimSpace(out))
	}
	return file
}

// result is the line that says how a test ended.
var result = regexp.MustCompile(`(?m)^\s*--- (PASS|FAIL|SKIP): (\S+)`)

// outcomes reads what a test program printed with -test.v.
func outcomes(out string) (passed map[string]bool, bad []string) {
	passed = map[string]bool{}
	for _, r := range result.FindAllStringSubmatch(out, -1) {
		switch word, name := r[1], r[2]; word {
		case "PASS":
			passed[name] = true
		default:
			bad = append(bad, fmt.Sprintf("%s: %s", name, word))
		}
	}
	return passed, bad
}

// A test that is skipped, or that did not run, is no proof.
func TestOutcomes(t *testing.T) {
	passed, bad := outcomes("=== RUN   TestA\n--- PASS: TestA (0.00s)\n    --- PASS: TestA/b (0.1s)\n    --- SKIP: TestA/c (0.1s)\n--- FAIL: TestD (0.00s)\nPASS\n")
	if len(passed) != 2 || !passed["TestA/b"] || strings.Join(bad, ", ") != "TestA/c: SKIP, TestD: FAIL" {
		t.Errorf("%v, %q", passed, bad)
	}
}
