package tidy

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// No error is dropped where one would be a lost write, a lost vote or a lost
// fence.
func TestNothingDropped(t *testing.T) {
	found, err := Dropped("../..", "./mirror/...", "./failover/...", "./agent/...", "./heartbeat/...")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

func TestDroppedPlanted(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module hapair\n\ngo 1.26\n",
		"mirror/a.go": `package mirror

import "os"

func pair() (int, error) { return 0, nil }
func none()              {}

func f() {
	os.Remove("a")
	defer os.Remove("b")
	go pair()
	pair()
	none()
	os.Remove("c") // a leftover that nobody needs
	if err := os.Remove("d"); err != nil {
		panic(err)
	}
	g := func() error { return nil }
	g()
}
`,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Dropped(root, "./...")
	if err != nil {
		t.Fatal(err)
	}
	var lines []int
	for _, f := range found {
		if f.Rule != "dropped" || f.File != "mirror/a.go" {
			t.Errorf("found %s", f)
		}
		lines = append(lines, f.Line)
	}
	if !slices.Equal(lines, []int{9, 10, 11, 12, 19}) {
		t.Errorf("found in lines %v", lines)
	}
}
