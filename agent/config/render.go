package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Render returns the effective configuration. What the file does not say is
// marked: values as defaults, and what is not there by a comment that says what
// that means. It parses again to an equal Config.
func (c *Config) Render() string {
	r := c.render()
	return strings.Join(r.lines, "\n") + "\n"
}

// Defaults lists the keys that the file does not set.
func (c *Config) Defaults() []string { return c.render().defaults }

func (c *Config) render() *renderer {
	r := &renderer{src: c.src, defaults: []string{}}
	r.structure(reflect.ValueOf(*c), "", "")
	return r
}

// renderer writes YAML line by line, because a default is told in a comment.
type renderer struct {
	src      *source
	lines    []string
	defaults []string
}

const indent = "  "

// structure writes a struct's fields. A field's tag "unset" says what it means
// that it is not there; without one that is not worth a line.
func (r *renderer) structure(v reflect.Value, path, in string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" {
			continue
		}
		at := join(path, name)
		if option != "omitempty" || !empty(v.Field(i)) {
			r.value(name, v.Field(i), at, in, r.given(at))
			continue
		}
		if unset := f.Tag.Get("unset"); unset != "" {
			r.lines = append(r.lines, fmt.Sprintf("%s# %s: %s (default)", in, name, unset))
			r.defaults = append(r.defaults, at)
		}
	}
}

// given reports whether the file has a value at a path.
func (r *renderer) given(path string) bool {
	if r.src == nil {
		return true
	}
	_, ok := r.src.at[path]
	return ok
}

// value writes one value under its key. Inside a struct each field knows
// whether it was given; below that everything is as its field is.
func (r *renderer) value(key string, v reflect.Value, path, in string, given bool) {
	key = scalar(key) + ":"
	if text, ok := leaf(v); ok {
		r.line(in+key+" "+text, path, given)
		return
	}
	r.lines = append(r.lines, in+key)
	switch x := v.Interface().(type) {
	case PerNode:
		r.texts(x.ByNode, in+indent)
		return
	case map[string]string:
		r.texts(x, in+indent)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		r.structure(v.Elem(), path, in+indent)
	case reflect.Struct:
		r.structure(v, path, in+indent)
	case reflect.Slice:
		r.list(v, path, in+indent, given)
	}
}

func (r *renderer) line(text, path string, given bool) {
	if !given {
		text += "  # default"
		r.defaults = append(r.defaults, path)
	}
	r.lines = append(r.lines, text)
}

func (r *renderer) texts(m map[string]string, in string) {
	for _, k := range sortedKeys(m) {
		r.lines = append(r.lines, in+scalar(k)+": "+scalar(m[k]))
	}
}

// list writes a list, or the mapping that it is in the file when its elements
// carry their keys.
func (r *renderer) list(v reflect.Value, path, in string, given bool) {
	elem := v.Type().Elem()
	key, value := -1, -1
	if elem.Kind() == reflect.Struct {
		key, value = taggedField(elem, "key"), taggedField(elem, "value")
	}
	for i := range v.Len() {
		e := v.Index(i)
		switch {
		case key >= 0 && value >= 0:
			r.value(e.Field(key).String(), e.Field(value), path, in, given)
		case key >= 0:
			name := e.Field(key).String()
			r.value(name, e, join(path, name), in, given)
		default:
			r.item(e, fmt.Sprintf("%s[%d]", path, i), in)
		}
	}
}

// item writes an element of a list: its first line carries the dash.
func (r *renderer) item(e reflect.Value, path, in string) {
	if text, ok := leaf(e); ok {
		r.lines = append(r.lines, in+"- "+text)
		return
	}
	first := len(r.lines)
	r.structure(e, path, in+indent)
	r.lines[first] = in + "- " + strings.TrimPrefix(r.lines[first], in+indent)
}

// leaf returns the text of a value that stands on its key's line.
func leaf(v reflect.Value) (string, bool) {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String(), true
	case Size:
		return x.String(), true
	case Rate:
		return x.String(), true
	case PerNode:
		return scalar(x.All), x.All != ""
	case bool, int, uint16:
		return fmt.Sprint(x), true
	case encoding.TextMarshaler:
		if text, err := x.MarshalText(); err == nil {
			return scalar(string(text)), true
		}
	}
	if v.Kind() == reflect.String {
		return scalar(v.String()), true
	}
	return "", false
}

// scalar quotes a text where YAML would take it for something else.
func scalar(text string) string {
	plain, err := yaml.Marshal(text)
	s := strings.TrimSuffix(string(plain), "\n")
	if err != nil || strings.Contains(s, "\n") || slices.ContainsFunc([]rune(s), func(c rune) bool { return c == '#' }) {
		quoted, err := json.Marshal(text)
		if err != nil {
			panic(fmt.Sprintf("render configuration: %v", err)) // a text is always written
		}
		return string(quoted)
	}
	return s
}

func empty(v reflect.Value) bool {
	if p, ok := v.Interface().(PerNode); ok {
		return p.IsZero()
	}
	return v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0
}
