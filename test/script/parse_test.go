package script

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Every form there is, and what is told about each line that is not one.
func TestGolden(t *testing.T) {
	out := new(bytes.Buffer)
	text, err := os.ReadFile("testdata/everything.txt")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse("testdata/everything.txt", text)
	if err != nil {
		t.Fatal(err)
	}
	out.WriteString(s.String())
	out.WriteString("\nrefused:\n")
	wrong, err := os.ReadFile("testdata/wrong.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(wrong)) {
		_, err := Parse("x.txt", []byte("scenario x\nnever two-primaries\nnever ack-lost\n"+line))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%q: %v", line, err)
			continue
		}
		out.WriteString(err.Error() + "\n")
	}
	const golden = "testdata/everything.golden"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("not as %s:\n%s", golden, out)
	}
}

// What only the whole file shows, and its bounds.
func TestWholeFile(t *testing.T) {
	head := "scenario x\nnever two-primaries\nnever ack-lost\n"
	for text, want := range map[string]string{
		"":                                      "no purpose",
		head:                                    "no steps",
		head + "kill alpha\n":                   "no load",
		"scenario x\nnever ack-lost\nload on\n": "nothing may excuse",
		"kill alpha\n":                          "before the purpose",
		"scenario x\nscenario y\n":              "once",
		head + "load on\nnever ack-lost\n":      "belongs into the header",
		head + strings.Repeat("load on\n", stepsMax+1): "more than 200 steps",
		strings.Repeat("#", fileBytesMax+1):            "65537 bytes",
	} {
		if _, err := Parse("x.txt", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v; want %q", text, err, want)
		}
	}
}

// Every file of the project is understood, says what it is about, and is read again
// from how it is written.
func TestScenariosOfTheProject(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 25 {
		t.Fatalf("%d scenarios", len(all))
	}
	for _, s := range all {
		if len(s.About) == 0 {
			t.Errorf("%s is about nothing", s.Name)
		}
		again, err := Parse(s.Name+".txt", []byte(s.String()))
		if err != nil || again.String() != s.String() {
			t.Errorf("%s is not read as it is written: %v", s.Name, err)
		}
	}
}

// Every file stands in the table of DESIGN.md, and the table names no other.
func TestTable(t *testing.T) {
	text, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob("scenarios/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range found {
		name := strings.TrimSuffix(filepath.Base(f), ".txt")
		have[name] = true
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("%s is not in the table of DESIGN.md", name)
		}
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		for i, word := range strings.Split(line, "`") {
			if i%2 == 1 && !have[word] {
				t.Errorf("DESIGN.md: %q is no scenario", word)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/everything.txt", "testdata/wrong.txt"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse("x.txt", text)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		again, err := Parse("x.txt", []byte(s.String()))
		if err != nil {
			t.Fatalf("what is written is not read: %v\n%s", err, s)
		}
		if again.String() != s.String() {
			t.Fatalf("%s\nis read as\n%s", s, again)
		}
	})
}
