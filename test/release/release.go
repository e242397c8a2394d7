// Package release keeps the bytes that earlier releases have written. A node is
// upgraded while its peer is not, and disks outlive releases: what is under
// testdata/release-N was written by release N (CHANGELOG.md says which formats it
// had), is never written anew, and has to mean the same for every release after it.
package release

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Dir is where a package keeps what a release wrote.
func Dir(release string) string { return filepath.Join("testdata", "release-"+release) }

// Frozen returns what a release has written under a name. HAPAIR_FREEZE=1 writes
// what is not there yet, by the present code; what is there stays.
func Frozen(t testing.TB, release, name string, made func() []byte) []byte {
	t.Helper()
	path := filepath.Join(Dir(release), name)
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) && os.Getenv("HAPAIR_FREEZE") != "" {
		b = made()
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.WriteFile(path, b, 0o644)
		}
	}
	if err != nil {
		t.Fatalf("what release %s wrote: %v", release, err)
	}
	return b
}

// Named are byte strings with a name each, in their order.
type Named []struct {
	Name  string
	Bytes []byte
}

// Add appends one.
func (n *Named) Add(name string, b []byte) {
	*n = append(*n, struct {
		Name  string
		Bytes []byte
	}{name, b})
}

// Lines is Named as a file: a name and hex in a line.
func (n Named) Lines() []byte {
	var out strings.Builder
	for _, x := range n {
		out.WriteString(x.Name + " " + hex.EncodeToString(x.Bytes) + "\n")
	}
	return []byte(out.String())
}

// Parse reads what Lines wrote.
func Parse(t testing.TB, file []byte) (n Named) {
	t.Helper()
	for line := range strings.Lines(string(file)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n.Add(name, b)
	}
	return n
}
