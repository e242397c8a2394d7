package tidy

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"unicode"
)

// packageDocs wants one file of every package to say what the package is.
func (t *tree) packageDocs() []Finding {
	first := map[string]*file{}
	said := map[string]bool{}
	var order []string
	for _, f := range t.files {
		if f.test {
			continue
		}
		if first[f.dir] == nil {
			first[f.dir] = f
			order = append(order, f.dir)
		}
		if f.ast.Doc != nil && strings.TrimSpace(f.ast.Doc.Text()) != "" {
			said[f.dir] = true
		}
	}
	var out []Finding
	for _, dir := range order {
		if f := first[dir]; !said[dir] {
			out = append(out, t.at(f, f.ast.Package, "comment", "package %s (%s) has no doc comment", f.ast.Name.Name, dir))
		}
	}
	return out
}

// exported wants a comment on every exported name of a non-test file. A
// comment on a group counts for constants and variables in it.
func (t *tree) exported(f *file) []Finding {
	if f.test || f.generated() {
		return nil
	}
	var out []Finding
	miss := func(pos token.Pos, what, name string) {
		out = append(out, t.at(f, pos, "comment", "exported %s %s has no doc comment", what, name))
	}
	for _, decl := range f.ast.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
				miss(d.Pos(), "function", d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				uncommented(d, spec, miss)
			}
		}
	}
	return out
}

func uncommented(d *ast.GenDecl, spec ast.Spec, miss func(token.Pos, string, string)) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return
		}
		if s.Doc == nil && d.Doc == nil && s.Comment == nil {
			miss(s.Pos(), "type", s.Name.Name)
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && s.Doc == nil && d.Doc == nil && s.Comment == nil && !toldBeside(d, name.Name) {
				miss(name.Pos(), "name", name.Name)
			}
		}
	}
}

// toldBeside reports a name that the comment of its neighbour speaks of, as in
// "MinSlots and MaxSlots bound a log".
func toldBeside(d *ast.GenDecl, name string) bool {
	for _, spec := range d.Specs {
		if v, ok := spec.(*ast.ValueSpec); ok && slices.Contains(words(v.Doc.Text()), name) {
			return true
		}
	}
	return false
}

func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' })
}

// wellKnown are methods whose contract another package states.
var wellKnown = map[string]bool{
	"Error": true, "String": true, "Unwrap": true, "Is": true, "As": true, "Len": true, "Less": true, "Swap": true,
	"Read": true, "Write": true, "Close": true, "MarshalJSON": true, "UnmarshalJSON": true, "MarshalText": true, "UnmarshalText": true,
}

// exportedReceiver reports whether readers of the documentation see the
// function: a plain function, or a method of an exported type that is not one
// of the well-known.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	if wellKnown[d.Name.Name] {
		return false
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}
