package tidy

import (
	"go/ast"
	"go/token"
	"strconv"
	"strings"
)

// impureImports are refused in words, pure and core packages.
var impureImports = map[string]string{
	"os": "I/O", "net": "I/O", "syscall": "I/O", "os/exec": "I/O", "os/signal": "I/O", "io/ioutil": "I/O", "net/http": "I/O",
	"golang.org/x/sys/unix": "I/O",
	"math/rand":             "randomness", "math/rand/v2": "randomness", "crypto/rand": "randomness",
	"go.uber.org/zap": "pure packages do not log", "log": "pure packages do not log", "log/slog": "pure packages do not log",
}

// clockCalls are functions of package time that read or wait for the clock.
var clockCalls = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
	"Tick": true, "NewTimer": true, "NewTicker": true,
}

// impureFiles are the only files in which a package of a pure layer may touch
// the world, with the reason.
var impureFiles = map[string]string{
	"failover/lease/boottime.go": "the one real lease.Clock, beside the type it implements; nothing else in the package reads it",
}

// isPure reports the layers words, pure and core; the words of the API only
// carry times and are left out.
func isPure(dir string) bool {
	p, ok := placeOf(dir)
	return ok && p.layer <= Core && dir != "agent/apiv1"
}

// purity judges a non-test file of a pure package.
func (t *tree) purity(f *file) []Finding {
	if f.test || !isPure(f.dir) || impureFiles[f.name] != "" {
		return nil
	}
	var out []Finding
	for _, spec := range f.ast.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if why := impureImports[target]; err == nil && why != "" {
			out = append(out, t.at(f, spec.Pos(), "purity", "pure package imports %s: %s", target, why))
		}
	}
	clock := timeName(f.ast)
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			out = append(out, t.at(f, n.Pos(), "purity", "pure package starts a goroutine"))
		case *ast.SelectStmt:
			out = append(out, t.at(f, n.Pos(), "purity", "pure package waits in a select"))
		case *ast.SendStmt:
			out = append(out, t.at(f, n.Pos(), "purity", "pure package sends on a channel"))
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				out = append(out, t.at(f, n.Pos(), "purity", "pure package receives from a channel"))
			}
		case *ast.CallExpr:
			if makesChannel(n) {
				out = append(out, t.at(f, n.Pos(), "purity", "pure package creates a channel"))
			}
		case *ast.SelectorExpr:
			if id, ok := n.X.(*ast.Ident); ok && clock != "" && id.Name == clock && clockCalls[n.Sel.Name] {
				out = append(out, t.at(f, n.Pos(), "purity", "pure package calls time.%s: take the time as an argument", n.Sel.Name))
			}
		}
		return true
	})
	return out
}

// timeName is what a file calls package time, "" when it does not import it.
func timeName(f *ast.File) string {
	for _, spec := range f.Imports {
		if spec.Path.Value != `"time"` {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return "time"
	}
	return ""
}

func makesChannel(call *ast.CallExpr) bool {
	name, ok := call.Fun.(*ast.Ident)
	if !ok || name.Name != "make" || len(call.Args) == 0 {
		return false
	}
	_, channel := call.Args[0].(*ast.ChanType)
	return channel
}

// hasPrefixAny is strings.HasPrefix for several.
func hasPrefixAny(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
