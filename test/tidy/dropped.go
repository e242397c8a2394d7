package tidy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Dropped finds calls whose error nobody looks at, in the packages below root
// that patterns name: as a statement of its own, behind go or behind defer.
// Unlike the other checks it needs types, and so the go command. A comment at
// the end of the line that says why is an answer.
func Dropped(root string, patterns ...string) ([]Finding, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	args := append([]string{"list", "-export", "-deps", "-json=ImportPath,Dir,GoFiles,Export,DepOnly"}, patterns...)
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list in %s: %w: %s", root, err, complaints.Bytes())
	}
	d := dropped{root: root, tree: &tree{root: root, fset: token.NewFileSet()}, exports: map[string]string{}}
	var own []listed
	for in := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := in.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("output of go list: %w", err)
		}
		d.exports[p.ImportPath] = p.Export
		if !p.DepOnly {
			own = append(own, p)
		}
	}
	d.types = types.Config{Importer: importer.ForCompiler(d.tree.fset, "gc", d.open)}
	for _, p := range own {
		if err := d.check(p); err != nil {
			return nil, fmt.Errorf("%s: %w", p.ImportPath, err)
		}
	}
	return d.found, nil
}

// listed is a package as go list tells it.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
}

type dropped struct {
	root    string
	tree    *tree
	exports map[string]string // files with the types of packages
	types   types.Config
	found   []Finding
}

func (d *dropped) open(path string) (io.ReadCloser, error) {
	file, ok := d.exports[path]
	if !ok || file == "" {
		return nil, fmt.Errorf("no export data for %s", path)
	}
	return os.Open(file)
}

func (d *dropped) check(p listed) error {
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(d.tree.fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	if _, err := d.types.Check(p.ImportPath, d.tree.fset, files, info); err != nil {
		return err
	}
	for _, f := range files {
		name, err := filepath.Rel(d.root, d.tree.fset.Position(f.Pos()).Filename)
		if err != nil {
			return err
		}
		d.walk(&file{name: filepath.ToSlash(name), ast: f}, info)
	}
	return nil
}

func (d *dropped) walk(f *file, info *types.Info) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		var call *ast.CallExpr
		switch n := n.(type) {
		case *ast.ExprStmt:
			call, _ = n.X.(*ast.CallExpr)
		case *ast.GoStmt:
			call = n.Call
		case *ast.DeferStmt:
			call = n.Call
		}
		if call != nil && !cannotFail(call, info) && yieldsError(info.Types[call].Type) && !d.tree.explained(f, call.Pos()) {
			d.found = append(d.found, d.tree.at(f, call.Pos(), "dropped", "nobody looks at the error: handle it, or say on this line why it does not matter"))
		}
		return true
	})
}

// yieldsError reports whether a call's result is, or ends with, an error.
func yieldsError(t types.Type) bool {
	if tuple, ok := t.(*types.Tuple); ok {
		if tuple.Len() == 0 {
			return false
		}
		t = tuple.At(tuple.Len() - 1).Type()
	}
	return t != nil && types.Identical(t, types.Universe.Lookup("error").Type())
}

// inMemory are writers whose errors are always nil, by their documentation.
var inMemory = map[string]bool{"strings.Builder": true, "*strings.Builder": true, "bytes.Buffer": true, "*bytes.Buffer": true, "hash.Hash": true}

// cannotFail reports writing to memory, and printing to a standard stream: there
// is nobody else to be told that it failed.
func cannotFail(call *ast.CallExpr, info *types.Info) bool {
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	if inMemory[typeOf(fun.X, info)] {
		return true
	}
	used := info.Uses[fun.Sel]
	if used == nil || used.Pkg() == nil || used.Pkg().Path() != "fmt" || len(call.Args) == 0 {
		return false
	}
	if strings.HasPrefix(used.Name(), "Print") {
		return true
	}
	to, ok := call.Args[0].(*ast.SelectorExpr)
	std := ok && (to.Sel.Name == "Stderr" || to.Sel.Name == "Stdout") && info.Uses[to.Sel].Pkg().Path() == "os"
	return std || inMemory[typeOf(call.Args[0], info)]
}

func typeOf(e ast.Expr, info *types.Info) string {
	if t := info.Types[e].Type; t != nil {
		return t.String()
	}
	return ""
}
