package apiv1_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"hapair/agent/apiv1"
)

func readDoc(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

var fieldName = regexp.MustCompile("`([a-z_0-9]+)(\\[\\])?`")

// Every JSON field of every type stands in docs/api.md.
func TestFieldsDocumented(t *testing.T) {
	known := map[string]bool{}
	for _, m := range fieldName.FindAllStringSubmatch(readDoc(t), -1) {
		known[m[1]] = true
	}
	n := 0
	for _, f := range parseAll(t) {
		ast.Inspect(f, func(node ast.Node) bool {
			field, ok := node.(*ast.Field)
			if !ok || field.Tag == nil {
				return true
			}
			tag, err := strconv.Unquote(field.Tag.Value)
			if err != nil {
				t.Fatal(err)
			}
			name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
			n++
			if name != "" && !known[name] {
				t.Errorf("field %q is not in docs/api.md", name)
			}
			return true
		})
	}
	if n < 100 {
		t.Errorf("only %d fields looked at", n)
	}
}

// Every code, event kind and path constant stands there too.
func TestConstantsDocumented(t *testing.T) {
	doc := readDoc(t)
	n := 0
	for _, f := range parseAll(t) {
		ast.Inspect(f, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			lit, ok := spec.Values[0].(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			value, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			n++
			if !strings.Contains(doc, value) {
				t.Errorf("%s = %q is not in docs/api.md", spec.Names[0].Name, value)
			}
			return true
		})
	}
	if n < 50 {
		t.Errorf("only %d constants looked at", n)
	}
}

func parseAll(t *testing.T) []*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var out []*ast.File
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.go") {
			out = append(out, f)
		}
	}
	return out
}

func TestProblemIs(t *testing.T) {
	p := &apiv1.Problem{Code: apiv1.CodeNotImplemented, Text: "verify: not implemented"}
	if !p.Is(apiv1.ErrNotImplemented) || p.Is(apiv1.ErrNotFound) {
		t.Error("problems are told apart by their code")
	}
}
