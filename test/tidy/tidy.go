// Package tidy keeps the form of the code: who may import whom, what the pure
// packages may not do, what must carry a comment, which patterns are banned,
// and how long things may get. It reads the sources with go/parser and builds
// nothing, but for Dropped, which asks the go command for types; the tables
// with the reasons are in layers.go and ratchet.go.
//
//  1. tidy.go      reads a tree and runs the checks over it
//  2. layers.go    the table of packages, their layers and rooms
//  3. purity.go    no clock, goroutine, channel or I/O in the pure ones
//  4. comments.go  every package and every exported name says what it is
//  5. banned.go    errors matched by text or dropped, words that do not belong
//  6. length.go    functions and files, against the table in ratchet.go
//  7. dropped.go   calls whose error nobody looks at
package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Module is the path every import of ours begins with.
const Module = "hapair"

// Finding is one place that breaks one rule.
type Finding struct {
	Rule string // layer, purity, comment, banned, length, dropped
	File string // slash-separated, from the root of the tree
	Line int
	Text string
}

// String returns "file:line: rule: text".
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Rule, f.Text)
}

// file is one parsed Go source.
type file struct {
	name  string // from the root, with slashes
	dir   string // "." for the root
	test  bool
	lab   bool // built only with the tag lab
	lines []string
	ast   *ast.File
}

// tree is everything that was read.
type tree struct {
	root  string
	fset  *token.FileSet
	files []*file
}

// Check reads the tree under root and returns what breaks a rule, in the order
// of files and lines. The error is of reading or parsing.
func Check(root string, limits Limits) ([]Finding, error) {
	t, err := read(root)
	if err != nil {
		return nil, err
	}
	mentions, err := mentions(root)
	if err != nil {
		return nil, err
	}
	all := mentions
	for _, f := range t.files {
		all = append(all, t.imports(f)...)
		all = append(all, t.purity(f)...)
		all = append(all, t.exported(f)...)
		all = append(all, t.banned(f)...)
	}
	all = append(all, t.packageDocs()...)
	all = append(all, t.lengths(limits)...)
	slices.SortStableFunc(all, func(a, b Finding) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return all, nil
}

// skipped are directories that hold no source of ours.
func skipped(name string) bool {
	return name == ".git" || name == "bin" || name == "dist" || name == "testdata" || name == "vendor"
}

func read(root string) (*tree, error) {
	t := &tree{root: root, fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != root && skipped(d.Name()):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(p, ".go"):
			return nil
		}
		f, err := t.parse(p)
		if err != nil {
			return err
		}
		t.files = append(t.files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", root, err)
	}
	return t, nil
}

func (t *tree) parse(p string) (*file, error) {
	text, err := os.ReadFile(p)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(t.root, p)
	if err != nil {
		return nil, err
	}
	rel = filepath.ToSlash(rel)
	parsed, err := parser.ParseFile(t.fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", rel, err)
	}
	return &file{
		name: rel, dir: path.Dir(rel), ast: parsed,
		test:  strings.HasSuffix(rel, "_test.go"),
		lab:   builtForLab(string(text)),
		lines: strings.Split(string(text), "\n"),
	}, nil
}

// builtForLab reports a build line that wants the tag lab.
func builtForLab(text string) bool {
	head, _, _ := strings.Cut(text, "\npackage ")
	for _, line := range strings.Split(head, "\n") {
		if strings.HasPrefix(line, "//go:build ") {
			return slices.Contains(strings.Fields(line), "lab")
		}
	}
	return false
}

func (t *tree) at(f *file, pos token.Pos, rule, format string, args ...any) Finding {
	return Finding{Rule: rule, File: f.name, Line: t.fset.Position(pos).Line, Text: fmt.Sprintf(format, args...)}
}

// generated reports the mark that tools put on what they write.
func (f *file) generated() bool { return ast.IsGenerated(f.ast) }
