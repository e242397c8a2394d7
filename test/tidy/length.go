package tidy

import (
	"fmt"
	"go/ast"
	"go/types"
)

// Limits bound the length of functions and files, in lines.
type Limits struct {
	FunctionLines, FileLines int
	// Exceptions are what was longer when it was listed. Each may only shrink,
	// and leaves the table when it is within the limit.
	Exceptions []Exception
}

// Exception is one thing over the limit.
type Exception struct {
	File     string // from the root of the tree
	Function string // "" for the file itself; Type.Method for a method
	Lines    int    // its length now; may only shrink
	Why      string // what a reader would lose if it were cut
}

type measured struct {
	file, function string
	at             Finding
	lines, limit   int
}

// lengths judges every file and function, and the table itself.
func (t *tree) lengths(l Limits) []Finding {
	excepted := map[[2]string]Exception{}
	var out []Finding
	for _, e := range l.Exceptions {
		key := [2]string{e.File, e.Function}
		if _, twice := excepted[key]; twice || e.Why == "" {
			out = append(out, Finding{Rule: "length", File: e.File, Text: fmt.Sprintf("exception for %q is listed twice or has no reason", e.Function)})
		}
		excepted[key] = e
	}
	for _, m := range t.measure(l) {
		e, listed := excepted[[2]string{m.file, m.function}]
		delete(excepted, [2]string{m.file, m.function})
		if text := judgeLength(m, e, listed); text != "" {
			m.at.Text = text
			out = append(out, m.at)
		}
	}
	for _, e := range l.Exceptions {
		if _, left := excepted[[2]string{e.File, e.Function}]; left {
			out = append(out, Finding{Rule: "length", File: e.File, Text: fmt.Sprintf("exception for %q, which does not exist any more: take it out of the table", e.Function)})
		}
	}
	return out
}

func judgeLength(m measured, e Exception, listed bool) string {
	what := "file"
	if m.function != "" {
		what = "function " + m.function
	}
	switch {
	case !listed && m.lines > m.limit:
		return fmt.Sprintf("%s has %d lines, at most %d", what, m.lines, m.limit)
	case listed && m.lines <= m.limit:
		return fmt.Sprintf("%s has %d lines, within the limit of %d: take it out of the table", what, m.lines, m.limit)
	case listed && m.lines > e.Lines:
		return fmt.Sprintf("%s grew from %d to %d lines; it may only shrink", what, e.Lines, m.lines)
	case listed && m.lines < e.Lines:
		return fmt.Sprintf("%s shrank from %d to %d lines: write the new length into the table", what, e.Lines, m.lines)
	}
	return ""
}

func (t *tree) measure(l Limits) []measured {
	var out []measured
	for _, f := range t.files {
		if f.generated() {
			continue
		}
		lines := len(f.lines)
		if lines > 0 && f.lines[lines-1] == "" {
			lines-- // the text ends with a newline
		}
		out = append(out, measured{f.name, "", Finding{Rule: "length", File: f.name, Line: 1}, lines, l.FileLines})
		for _, decl := range f.ast.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || d.Body == nil {
				continue
			}
			n := t.fset.Position(d.End()).Line - t.fset.Position(d.Pos()).Line + 1
			out = append(out, measured{f.name, functionName(d), t.at(f, d.Pos(), "length", ""), n, l.FunctionLines})
		}
	}
	return out
}

func functionName(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return d.Name.Name
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	return types.ExprString(typ) + "." + d.Name.Name
}
