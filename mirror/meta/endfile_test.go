package meta

import (
	"os"
	"path/filepath"
	"testing"
)

func TestEndFile(t *testing.T) {
	f := EndFileOf(filepath.Join(t.TempDir(), "state"), "pg", 2)
	if got := f.Last(); got != 0 {
		t.Fatalf("before anything was kept: %d", got)
	}
	for _, end := range []int64{1 << 30, 1 << 30, 1 << 40} {
		if err := f.Keep(end); err != nil || f.Last() != end {
			t.Fatalf("%d, %v", f.Last(), err)
		}
	}
	for _, bad := range []string{"", "{}", `{"format":2,"end_bytes":4096}`, `{"format":1,"end_bytes":-1}`, "null"} {
		if err := os.WriteFile(f.Path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := f.Last(); got != 0 {
			t.Errorf("%q: %d", bad, got)
		}
	}
	for range 2 {
		if err := f.Forget(); err != nil || f.Last() != 0 {
			t.Fatal(err)
		}
	}
}
