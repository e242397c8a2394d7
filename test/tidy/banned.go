package tidy

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// banned finds errors matched by their text everywhere, and dropped results
// in the mirror, where a dropped error is a lost write.
func (t *tree) banned(f *file) []Finding {
	var out []Finding
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if matchesErrorText(n) && !f.test {
				out = append(out, t.at(f, n.Pos(), "banned", "an error is matched by its text: use errors.Is or errors.As"))
			}
		case *ast.BinaryExpr:
			if (n.Op == token.EQL || n.Op == token.NEQ) && isErrorText(n.X) != isErrorText(n.Y) && !isNil(n.X) && !isNil(n.Y) && !f.test {
				out = append(out, t.at(f, n.Pos(), "banned", "an error is compared by its text: use errors.Is or errors.As"))
			}
		case *ast.AssignStmt:
			if dropsResult(n) && !f.test && hasPrefixAny(f.dir+"/", "mirror/") && !t.explained(f, n.Pos()) {
				out = append(out, t.at(f, n.Pos(), "banned", "a result is dropped: handle the error, or say on this line why it does not matter"))
			}
		}
		return true
	})
	return out
}

var textMatchers = map[string]bool{"Contains": true, "HasPrefix": true, "HasSuffix": true, "EqualFold": true, "Index": true, "ContainsAny": true, "Count": true}

// matchesErrorText sees strings.Contains(err.Error(), ...) and its sisters.
func matchesErrorText(call *ast.CallExpr) bool {
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !textMatchers[fun.Sel.Name] && fun.Sel.Name != "MatchString" {
		return false
	}
	for _, arg := range call.Args {
		if isErrorText(arg) {
			return true
		}
	}
	return false
}

// isErrorText sees x.Error(), also inside strings.ToLower and the like.
func isErrorText(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	if fun.Sel.Name == "Error" && len(call.Args) == 0 {
		return true
	}
	if pkg, ok := fun.X.(*ast.Ident); ok && pkg.Name == "strings" && len(call.Args) > 0 {
		return isErrorText(call.Args[0])
	}
	return false
}

// isNil tells a future's Error() method, which returns an error, from a text.
func isNil(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == "nil"
}

// dropsResult sees `_ = f()` and `_, _ = f()`.
func dropsResult(a *ast.AssignStmt) bool {
	if a.Tok != token.ASSIGN || len(a.Rhs) != 1 {
		return false
	}
	if _, call := a.Rhs[0].(*ast.CallExpr); !call {
		return false
	}
	for _, l := range a.Lhs {
		if id, ok := l.(*ast.Ident); !ok || id.Name != "_" {
			return false
		}
	}
	return true
}

// explained reports a comment at the end of the line.
func (t *tree) explained(f *file, pos token.Pos) bool {
	line := t.fset.Position(pos).Line
	for _, group := range f.ast.Comments {
		for _, c := range group.List {
			if t.fset.Position(c.Pos()).Line == line && c.Pos() > pos {
				return true
			}
		}
	}
	return false
}

// foreign are words that name places outside the repository: whoever reads the
// repository alone could not follow them. They are put together here so that
// this file does not hold them.
var foreign = []string{".." + "/shared", "/work/" + "shared", "/work/" + "main"}

// textFiles are the endings that mentions looks into.
var textFiles = map[string]bool{
	".go": true, ".md": true, ".yaml": true, ".yml": true, ".sh": true, ".mod": true, ".txt": true, ".pml": true, ".html": true, ".service": true, "": true,
}

const mentionBytesMax = 4 << 20

// mentions looks for foreign words in all text of the tree.
func mentions(root string) ([]Finding, error) {
	var out []Finding
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || p == filepath.Join(root, "bin") || p == filepath.Join(root, "dist")):
			return filepath.SkipDir
		case !d.Type().IsRegular() || !textFiles[filepath.Ext(p)]:
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Size() > mentionBytesMax {
			return err
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		out = append(out, mentionsIn(filepath.ToSlash(rel), text)...)
		return nil
	})
	return out, err
}

func mentionsIn(name string, text []byte) []Finding {
	var out []Finding
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, mentionBytesMax)
	for n := 1; lines.Scan(); n++ {
		for _, word := range foreign {
			if strings.Contains(lines.Text(), word) {
				out = append(out, Finding{Rule: "banned", File: name, Line: n, Text: "mentions " + word + ", which is not in the repository"})
			}
		}
	}
	return out
}
