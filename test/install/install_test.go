package install

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hapair/agent/config"
)

var update = flag.Bool("update", false, "rewrite the golden list")

const root = "../.."

// many are files of which there is one for each command, or document: they are one
// line of the list.
var many = []struct {
	files *regexp.Regexp
	as    string
}{
	{regexp.MustCompile(`/man8/hactl-[a-z-]+\.8$`), "/man8/hactl-COMMAND.8"},
	{regexp.MustCompile(`/doc/hapair/docs/[A-Za-z]+\.md$`), "/doc/hapair/docs/DOCUMENT.md"},
}

// run calls make, and shows what it said if it fails.
func run(t *testing.T, words ...string) {
	t.Helper()
	for _, name := range []string{"haagent", "hactl"} {
		if _, err := os.Stat(filepath.Join(root, "bin", name)); err != nil {
			t.Skip("needs make build")
		}
	}
	cmd := exec.Command("make", append([]string{"-s", "-C", root}, words...)...)
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %q: %v\n%s", words, err, out)
	}
}

// tree lists the files below dir by name: mode, and a digest of what is in them.
func tree(t *testing.T, dir string) (list []string, digests map[string]string) {
	t.Helper()
	digests = map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		digests[name] = fmt.Sprintf("%v %x", info.Mode(), sha256.Sum256(text))
		for _, m := range many {
			name = m.files.ReplaceAllString(name, m.as)
		}
		list = append(list, fmt.Sprintf("%v %s", info.Mode(), name))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return slices.Compact(list), digests
}

func TestInstall(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	run(t, "install", "DESTDIR="+one, "PREFIX=/usr")
	list, digests := tree(t, one)
	got := strings.Join(list, "\n") + "\n"
	const golden = "testdata/tree.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("installed is something else (-update rewrites the list):\n%s", diff)
	}
	run(t, "install", "DESTDIR="+two, "PREFIX=/usr")
	if _, again := tree(t, two); !cmp.Equal(digests, again) {
		t.Errorf("not the same each time:\n%s", cmp.Diff(digests, again))
	}
	checkUnits(t, one)

	// What belongs to others stays.
	stays := filepath.Join(two, "usr/share/man/man8/hactl.8x")
	if err := os.WriteFile(stays, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "uninstall", "DESTDIR="+two, "PREFIX=/usr")
	if left, _ := tree(t, two); len(left) != 1 || !strings.HasSuffix(left[0], "hactl.8x") {
		t.Errorf("left by uninstall: %q", left)
	}
}

var unfilled = regexp.MustCompile(`@[A-Z]+@`)

// checkUnits sees that nothing is left to fill in, and that they start what was
// installed.
func checkUnits(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"hapair.service", "hapair-witness.service"} {
		text, err := os.ReadFile(filepath.Join(dir, "usr/lib/systemd/system", name))
		if err != nil {
			t.Fatal(err)
		}
		if unfilled.Match(text) || !strings.Contains(string(text), "\nExecStart=/usr/sbin/haagent") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
}

// systemd itself has nothing to say against the units.
func TestUnitsAreVerified(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze")
	}
	prefix := filepath.Join(t.TempDir(), "usr")
	run(t, "install", "DESTDIR=/", "PREFIX="+prefix) // ExecStart is there
	for _, name := range []string{"hapair.service", "hapair-witness.service"} {
		out, err := exec.Command(tool, "verify", "--man=no", "--recursive-errors=no", filepath.Join(prefix, "lib/systemd/system", name)).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// The example is one.
func TestExample(t *testing.T) {
	c, err := config.Load(filepath.Join(root, "agent/systemd/hapair.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckImplemented(); err != nil {
		t.Error(err)
	}
	if len(c.Resources) != 1 || len(c.Resources[0].Services) != 3 {
		t.Errorf("%+v", c.Resources)
	}
}
