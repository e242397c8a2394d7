package tidy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The repository keeps its form.
func TestRepository(t *testing.T) {
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("not at the root of the module: %v", err)
	}
	found, err := Check(root, TheLimits)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// Every package below the root stands in one layer, and every line of the
// table has its reason.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range places {
		if p.why == "" {
			t.Errorf("%s has no reason", p.path)
		}
		if seen[p.path] {
			t.Errorf("%s stands twice", p.path)
		}
		seen[p.path] = true
	}
	for pkg, want := range map[string]Layer{
		"mirror": Faces, "mirror/engine": Core, "mirror/front/fuse": Hands, "mirror/genid": Pure, "failover/plan": Core, "kernel/apart": Kernel,
		"agent": Commands, "agent/api": Agent, "agent/config": Hands, "test/lab": Tests, "heartbeat/detect": Pure,
		"mirror/front/fronttest": Tests,
	} {
		if got, ok := placeOf(pkg); !ok || got.layer != want {
			t.Errorf("%s is in layer %s, want %s", pkg, got.layer, want)
		}
	}
	if _, ok := placeOf("surprise"); ok {
		t.Error("an unknown package has a place")
	}
}

// plant is a tree with one violation in it.
type plant struct {
	name  string
	files map[string]string
	want  string // "rule: part of the text"; "" for none
}

var plants = []plant{
	{"nothing wrong", map[string]string{"mirror/block/a.go": "// Package block is.\npackage block\n"}, ""},
	{"rooms", map[string]string{
		"mirror/link/a.go": "// Package link is.\npackage link\n\nimport _ \"hapair/heartbeat/ring\"\n",
	}, "layer: mirror/link imports heartbeat/ring: the rooms mirror and heartbeat never import each other"},
	{"room knows the agent", map[string]string{
		"failover/x/a.go": "// Package x is.\npackage x\n\nimport _ \"hapair/agent/config\"\n",
	}, "layer: failover/x imports agent/config: a room knows nothing of the agent"},
	{"upwards", map[string]string{
		"mirror/block/a.go": "// Package block is.\npackage block\n\nimport _ \"hapair/mirror/engine\"\n",
	}, "layer: mirror/block imports mirror/engine: words may not import core"},
	{"sideways", map[string]string{
		"mirror/genid/a.go": "// Package genid is.\npackage genid\n\nimport _ \"hapair/mirror/dirty\"\n",
	}, "layer: mirror/genid imports mirror/dirty: pure may not import pure"},
	{"test code in the product", map[string]string{
		"mirror/store/a.go": "// Package store is.\npackage store\n\nimport _ \"hapair/test/fault\"\n",
	}, "layer: mirror/store imports test/fault: only tests"},
	{"test code in the lab build", map[string]string{
		"mirror/store/a.go": "//go:build lab\n\n// Package store is.\npackage store\n\nimport _ \"hapair/test/fault\"\n",
	}, ""},
	{"no layer", map[string]string{"attic/a.go": "// Package attic is.\npackage attic\n"}, "layer: package attic stands in no layer"},
	{"clock", pure("import \"time\"\n\nvar x = time.Now()\n"), "purity: pure package calls time.Now"},
	{"renamed clock", pure("import t \"time\"\n\nfunc f() { t.Sleep(1) }\n"), "purity: pure package calls time.Sleep"},
	{"timer", pure("import \"time\"\n\nvar x = time.After(1)\n"), "purity: pure package calls time.After"},
	{"durations are fine", pure("import \"time\"\n\nvar x = time.Second\n"), ""},
	{"goroutine", pure("func f() { go f() }\n"), "purity: pure package starts a goroutine"},
	{"channel", pure("var x = make(chan int)\n"), "purity: pure package creates a channel"},
	{"receive", pure("func f(c chan int) { <-c }\n"), "purity: pure package receives"},
	{"files", pure("import _ \"os\"\n"), "purity: pure package imports os: I/O"},
	{"sockets", pure("import _ \"net\"\n"), "purity: pure package imports net"},
	{"system calls", pure("import _ \"syscall\"\n"), "purity: pure package imports syscall"},
	{"dice", pure("import _ \"math/rand/v2\"\n"), "purity: pure package imports math/rand/v2: randomness"},
	{"clock in a test", map[string]string{
		"mirror/genid/a.go": "// Package genid is.\npackage genid\n", "mirror/genid/a_test.go": "package genid\n\nimport \"time\"\n\nvar x = time.Now()\n",
	}, ""},
	{"clock in the hands", hands("import \"time\"\n\nvar x = time.Now()\n"), ""},
	{"package without a word", map[string]string{"mirror/store/a.go": "package store\n"}, "comment: package store (mirror/store) has no doc comment"},
	{"function", hands("func Open() {}\n"), "comment: exported function Open"},
	{"type", hands("type Disk int\n"), "comment: exported type Disk"},
	{"constant", hands("const Max = 1\n"), "comment: exported name Max"},
	{"group", hands("// The bounds.\nconst (\n\tMax = 1\n\tMin = 0\n)\n"), ""},
	{"pair told at once", hands("const (\n\t// Min and Max bound it.\n\tMin = 0\n\tMax = 1\n)\n"), ""},
	{"method", hands("// D is.\ntype D int\n\nfunc (d *D) Open() {}\n"), "comment: exported function Open"},
	{"hidden method", hands("type d int\n\nfunc (d *d) Open() {}\n"), ""},
	{"error text", hands("import \"strings\"\n\nfunc f(err error) bool { return strings.Contains(err.Error(), \"x\") }\n"), "banned: an error is matched by its text"},
	{"lower error text", hands("import \"strings\"\n\nfunc f(err error) bool { return strings.HasPrefix(strings.ToLower(err.Error()), \"x\") }\n"), "banned: an error is matched by its text"},
	{"compared text", hands("func f(err error) bool { return err.Error() == \"x\" }\n"), "banned: an error is compared by its text"},
	{"a future's error", hands("type future struct{}\n\nfunc (future) Error() error { return nil }\n\nvar ok = future{}.Error() == nil\n"), ""},
	{"dropped", hands("func f() error { return nil }\n\nfunc g() {\n\t_ = f()\n}\n"), "banned: a result is dropped"},
	{"dropped two", hands("func f() (int, error) { return 0, nil }\n\nfunc g() {\n\t_, _ = f()\n}\n"), "banned: a result is dropped"},
	{"dropped with a reason", hands("func f() error { return nil }\n\nfunc g() {\n\t_ = f() // the disk is gone already\n}\n"), ""},
	{"dropped elsewhere", map[string]string{"agent/api/a.go": "// Package api is.\npackage api\n\nfunc f() error { return nil }\n\nfunc g() {\n\t_ = f()\n}\n"}, ""},
	{"foreign", map[string]string{"docs/a.md": "see .." + "/shared/design\n"}, "banned: mentions ../sh" + "ared"},
	{"foreign in a test's data", map[string]string{"mirror/x/testdata/a.txt": "\n/work/" + "shared/x\n"}, "banned: mentions /work/sh" + "ared"},
	{"long function", hands("func f() {\n" + strings.Repeat("\tf()\n", 10) + "}\n"), "length: function f has 12 lines, at most 10"},
	{"long method", hands("type d int\n\nfunc (x *d) f() {\n" + strings.Repeat("\tx.f()\n", 10) + "}\n"), "length: function d.f has 12 lines, at most 10"},
	{"long file", hands(strings.Repeat("var _ = 1\n", 30)), "length: file has 33 lines, at most 30"},
}

func pure(body string) map[string]string {
	return map[string]string{"mirror/genid/a.go": "// Package genid is.\npackage genid\n\n" + body}
}

func hands(body string) map[string]string {
	return map[string]string{"mirror/store/a.go": "// Package store is.\npackage store\n\n" + body}
}

func grow(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// Each kind of violation, planted, is found, and nothing beside it.
func TestPlanted(t *testing.T) {
	limits := Limits{FunctionLines: 10, FileLines: 30}
	for _, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			found, err := Check(grow(t, p.files), limits)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, found, p.want)
		})
	}
}

func expect(t *testing.T, found []Finding, want string) {
	t.Helper()
	if want == "" {
		if len(found) > 0 {
			t.Errorf("found %v, want nothing", found)
		}
		return
	}
	if len(found) != 1 || !strings.Contains(found[0].String(), want) {
		t.Errorf("found %v, want one: %s", found, want)
	}
}

// The ratchet turns one way only.
func TestRatchet(t *testing.T) {
	long := hands("func f() {\n" + strings.Repeat("\tf()\n", 10) + "}\n")
	short := hands("func f() {}\n")
	entry := func(lines int, why string) []Exception {
		return []Exception{{File: "mirror/store/a.go", Function: "f", Lines: lines, Why: why}}
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		table []Exception
		want  string
	}{
		{"as listed", long, entry(12, "a table"), ""},
		{"grown", long, entry(11, "a table"), "grew from 11 to 12 lines"},
		{"shrunk", long, entry(13, "a table"), "shrank from 13 to 12 lines"},
		{"within the limit", short, entry(12, "a table"), "within the limit of 10: take it out"},
		{"no reason", long, entry(12, ""), "has no reason"},
		{"gone", hands(""), entry(12, "a table"), "does not exist any more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := Check(grow(t, c.files), Limits{FunctionLines: 10, FileLines: 100, Exceptions: c.table})
			if err != nil {
				t.Fatal(err)
			}
			expect(t, found, c.want)
		})
	}
}

// What does not parse is an error, not a silence.
func TestBroken(t *testing.T) {
	if _, err := Check(grow(t, map[string]string{"mirror/store/a.go": "package"}), TheLimits); err == nil {
		t.Error("a broken file was read as good")
	}
}
