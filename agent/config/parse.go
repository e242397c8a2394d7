package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sort"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Load reads and checks a file. A problem of the content is an [Errors]; one of
// reading it wraps the os error.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open configuration: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return Parse(path, data)
}

// Parse checks data and fills in the defaults; name stands in messages. The
// error is an [Errors].
func Parse(name string, data []byte) (*Config, error) {
	src := newSource(name, data)
	if len(data) > MaxFileBytes {
		return nil, Errors{{File: name, Text: fmt.Sprintf("the file is larger than %s", Size(MaxFileBytes))}}
	}
	body, errs := syntax(src, data)
	if errs != nil {
		return nil, errs
	}
	cfg := &Config{src: src}
	d := &decoder{src: src}
	d.decode(body, reflect.ValueOf(cfg).Elem(), "", 0)
	if len(d.errs) > 0 {
		return nil, inOrder(d.errs)
	}
	c := &checker{cfg: cfg, src: src}
	c.normalize()
	c.validate()
	if len(c.errs) > 0 {
		return nil, inOrder(c.errs)
	}
	return cfg, nil
}

// syntax returns the one document of the file.
func syntax(src *source, data []byte) (ast.Node, Errors) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, Errors{syntaxError(src, err)}
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 1:
		return bodies[0], nil
	case 0:
		return nil, Errors{{File: src.name, Text: "the file is empty", Hint: "two addresses and one disk are enough:\n        nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}\n        disk: /dev/vg0/data"}}
	}
	return nil, Errors{src.errAt(posOf(bodies[1]), "a second document begins here", "keep everything in one document, without ---")}
}

func syntaxError(src *source, err error) *Error {
	var ye yaml.Error
	if !errors.As(err, &ye) || ye.GetToken() == nil || ye.GetToken().Position == nil {
		return &Error{File: src.name, Text: firstLine(err.Error())}
	}
	at := ye.GetToken().Position
	hint := ""
	if at.Line > 0 && at.Line <= len(src.lines) && strings.HasPrefix(src.lines[at.Line-1], "\t") {
		hint = "indent with blanks; YAML does not take tabs"
	}
	return src.errAt(position{at.Line, at.Column}, ye.GetMessage(), hint)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// inOrder sorts problems as the file has them.
func inOrder(errs Errors) Errors {
	sort.SliceStable(errs, func(i, j int) bool {
		a, b := errs[i], errs[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		if a.Column != b.Column {
			return a.Column < b.Column
		}
		return a.Text < b.Text
	})
	return errs
}
