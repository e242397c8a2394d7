package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"

	"hapair/failover/service"
)

// decoder fills typed values from the syntax tree. It is strict, collects every
// problem instead of stopping at the first, and notes where each value stood.
type decoder struct {
	src  *source
	errs Errors
}

// maxDepth bounds nesting; the format needs seven levels.
const maxDepth = 32

func posOf(n ast.Node) position {
	// A mapping's own token is its first colon; the first key is what a reader
	// would point at.
	switch m := n.(type) {
	case *ast.MappingNode:
		if t := m.GetToken(); t != nil && t.Value != "{" && len(m.Values) > 0 {
			return posOf(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return posOf(m.Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return position{t.Position.Line, t.Position.Column}
	}
	return position{}
}

func (d *decoder) fail(n ast.Node, hint, format string, args ...any) {
	d.errs = append(d.errs, d.src.errAt(posOf(n), fmt.Sprintf(format, args...), hint))
}

var (
	durationType  = reflect.TypeFor[time.Duration]()
	sizeType      = reflect.TypeFor[Size]()
	rateType      = reflect.TypeFor[Rate]()
	perNodeType   = reflect.TypeFor[PerNode]()
	commandType   = reflect.TypeFor[Command]()
	nodeType      = reflect.TypeFor[Node]()
	textType      = reflect.TypeFor[encoding.TextUnmarshaler]()
	stringMapType = reflect.TypeFor[map[string]string]()
)

// decode fills v from n.
func (d *decoder) decode(n ast.Node, v reflect.Value, path string, depth int) {
	if depth > maxDepth {
		d.fail(n, "", "nested more than %d levels deep", maxDepth)
		return
	}
	d.src.at[path] = posOf(n)
	if d.refuseFancy(n) {
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), path, depth+1)
	case v.Type() == durationType:
		d.duration(n, v)
	case v.Type() == sizeType:
		d.size(n, v)
	case v.Type() == rateType:
		d.rate(n, v)
	case v.Type() == perNodeType:
		d.perNode(n, v, path)
	case v.Type() == commandType:
		d.command(n, v)
	case v.Type() == stringMapType:
		v.Set(reflect.ValueOf(d.stringMap(n, path)))
	case v.Addr().Type().Implements(textType):
		d.text(n, v)
	case v.Kind() == reflect.Struct:
		d.structure(n, v, path, depth)
	case v.Kind() == reflect.Slice:
		d.slice(n, v, path, depth)
	default:
		d.scalar(n, v)
	}
}

// refuseFancy refuses the parts of YAML this file does not use: a reader must
// be able to point at each value, and an alias may multiply without bound.
func (d *decoder) refuseFancy(n ast.Node) bool {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		d.fail(n, "write the value out", "anchors and aliases are not used in this file")
	case *ast.TagNode, *ast.DirectiveNode:
		d.fail(n, "leave the tag away", "tags and directives are not used in this file")
	default:
		return false
	}
	return true
}

// entries returns a mapping's pairs, or fails.
func (d *decoder) entries(n ast.Node, what string) []*ast.MappingValueNode {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}
	}
	d.fail(n, "", "%s: want a mapping, found %s", what, describe(n))
	return nil
}

// key returns the text of a mapping's key.
func (d *decoder) key(kv *ast.MappingValueNode) (string, bool) {
	if d.refuseFancy(kv.Key) {
		return "", false
	}
	s, ok := scalarText(kv.Key)
	if !ok {
		d.fail(kv.Key, "", "a key must be a plain word, found %s", describe(kv.Key))
	}
	return s, ok
}

// structure fills a struct from a mapping (or, for a node, from its address).
func (d *decoder) structure(n ast.Node, v reflect.Value, path string, depth int) {
	if def, ok := v.Addr().Interface().(defaulter); ok {
		def.setDefaults()
	}
	if v.Type() == nodeType && !isMapping(n) {
		d.src.at[join(path, "addresses")] = posOf(n)
		d.decode(n, fieldByTag(v, "addresses"), path, depth+1)
		return
	}
	fields := structFields(v.Type())
	seen := map[string]bool{}
	for _, kv := range d.entries(n, lastName(path, v.Type())) {
		k, ok := d.key(kv)
		if !ok {
			continue
		}
		i, known := fields[k]
		if !known {
			d.unknownKey(kv.Key, k, fields)
			continue
		}
		if seen[k] {
			d.fail(kv.Key, "", "%q is given twice", k)
			continue
		}
		seen[k] = true
		d.decode(kv.Value, v.Field(i), join(path, k), depth+1)
	}
}

func (d *decoder) unknownKey(n ast.Node, k string, fields map[string]int) {
	names := sortedKeys(fields)
	hint := didYouMean(k, names)
	if hint == "" {
		hint = "known here: " + strings.Join(names, ", ")
	}
	d.fail(n, hint, "unknown key %q", k)
}

// slice fills a list; a list whose elements carry a key is a mapping in the file.
func (d *decoder) slice(n ast.Node, v reflect.Value, path string, depth int) {
	elem := v.Type().Elem()
	keyed := elem.Kind() == reflect.Struct && taggedField(elem, "key") >= 0
	switch {
	case keyed && isMapping(n):
		d.keyedMapping(n, v, path, depth)
	case keyed:
		d.keyedList(n, v, path, depth)
	default:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			d.fail(n, "write it as [...] or as lines that begin with -", "%s: want a list, found %s", lastName(path, elem), describe(n))
			return
		}
		for i, item := range seq.Values {
			e := reflect.New(elem).Elem()
			d.decode(item, e, fmt.Sprintf("%s[%d]", path, i), depth+1)
			v.Set(reflect.Append(v, e))
		}
	}
}

func (d *decoder) keyedMapping(n ast.Node, v reflect.Value, path string, depth int) {
	seen := map[string]bool{}
	for _, kv := range d.entries(n, path) {
		k, ok := d.key(kv)
		if !ok {
			continue
		}
		if seen[k] {
			d.fail(kv.Key, "", "%q is given twice", k)
			continue
		}
		seen[k] = true
		v.Set(reflect.Append(v, d.keyedElem(kv.Value, v.Type().Elem(), k, join(path, k), depth)))
		d.src.at[join(path, k)] = posOf(kv.Key)
	}
}

// keyedList accepts the short forms: a bare address, or a list of addresses.
func (d *decoder) keyedList(n ast.Node, v reflect.Value, path string, depth int) {
	elem := v.Type().Elem()
	seq, isList := n.(*ast.SequenceNode)
	switch {
	case elem == nodeType && isList:
		for i, item := range seq.Values {
			name := "node" + strconv.Itoa(i+1)
			v.Set(reflect.Append(v, d.keyedElem(item, elem, name, join(path, name), depth)))
		}
	case elem == reflect.TypeFor[Address]() && !isList && isScalar(n):
		v.Set(reflect.Append(v, d.keyedElem(n, elem, DefaultPathName, path, depth)))
	default:
		d.fail(n, "write it as name: value", "%s: want a mapping, found %s", lastName(path, elem), describe(n))
	}
}

func (d *decoder) keyedElem(n ast.Node, elem reflect.Type, key, path string, depth int) reflect.Value {
	e := reflect.New(elem).Elem()
	if i := taggedField(elem, "value"); i >= 0 {
		d.decode(n, e.Field(i), path, depth+1)
	} else {
		d.decode(n, e, path, depth+1)
	}
	e.Field(taggedField(elem, "key")).SetString(key)
	return e
}

func (d *decoder) perNode(n ast.Node, v reflect.Value, path string) {
	if s, ok := scalarText(n); ok {
		v.Set(reflect.ValueOf(PerNode{All: s}))
		return
	}
	if !isMapping(n) {
		d.fail(n, "", "%s: want a path, or one path per node, found %s", lastName(path, nil), describe(n))
		return
	}
	v.Set(reflect.ValueOf(PerNode{ByNode: d.stringMap(n, path)}))
}

func (d *decoder) stringMap(n ast.Node, path string) map[string]string {
	m := map[string]string{}
	for _, kv := range d.entries(n, lastName(path, nil)) {
		k, ok := d.key(kv)
		if !ok || d.refuseFancy(kv.Value) {
			continue
		}
		if _, twice := m[k]; twice {
			d.fail(kv.Key, "", "%q is given twice", k)
			continue
		}
		s, ok := scalarText(kv.Value)
		if !ok {
			d.fail(kv.Value, "", "%s: want a text, found %s", k, describe(kv.Value))
			continue
		}
		d.src.at[join(path, k)] = posOf(kv.Value)
		m[k] = s
	}
	return m
}

func (d *decoder) command(n ast.Node, v reflect.Value) {
	if s, ok := scalarText(n); ok {
		v.Set(reflect.ValueOf(Command(service.Shell(s))))
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		d.fail(n, "write [program, argument, ...] or one line for the shell", "want a command, found %s", describe(n))
		return
	}
	var c Command
	for _, item := range seq.Values {
		s, ok := scalarText(item)
		if !ok {
			d.fail(item, "", "a command's argument must be a text, found %s", describe(item))
			return
		}
		c = append(c, s)
	}
	v.Set(reflect.ValueOf(c))
}

func (d *decoder) text(n ast.Node, v reflect.Value) {
	s, ok := scalarText(n)
	if !ok {
		d.fail(n, "", "want an address, found %s", describe(n))
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil || s == "" {
		hint := "an address looks like 192.168.1.11 or fd00::11; names are not looked up"
		if v.Type() == reflect.TypeFor[AddressService]().Field(0).Type {
			hint = "a service address carries its prefix length, as in 192.168.1.50/24"
		}
		d.fail(n, hint, "%q is not an address", s)
	}
}

func (d *decoder) duration(n ast.Node, v reflect.Value) {
	s, _ := scalarText(n)
	t, err := parseTime(s)
	if err != nil {
		hint := "a time carries its unit, as in 500ms, 2s, 1m30s"
		if _, isNumber := n.(*ast.IntegerNode); isNumber {
			hint = fmt.Sprintf("did you mean %sms or %ss?", s, s)
		}
		d.fail(n, hint, "want a time, found %s", describe(n))
		return
	}
	v.SetInt(int64(t))
}

// parseTime reads a Go duration, or days.
func parseTime(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

func (d *decoder) rate(n ast.Node, v reflect.Value) {
	s, _ := scalarText(n)
	r, err := ParseRate(s)
	if err != nil {
		d.fail(n, "a rate looks like 20MiB/s", "want a rate, found %s", describe(n))
		return
	}
	v.SetInt(int64(r))
}

func (d *decoder) size(n ast.Node, v reflect.Value) {
	s, _ := scalarText(n)
	b, err := ParseSize(s)
	if err != nil {
		d.fail(n, "a size looks like 100GiB, 512MiB, 4096", "want a size, found %s", describe(n))
		return
	}
	v.SetInt(int64(b))
}

// scalar fills texts, numbers and yes/no.
func (d *decoder) scalar(n ast.Node, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if s, ok := scalarText(n); ok {
			v.SetString(s)
			return
		}
		d.fail(n, "", "want a text, found %s", describe(n))
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
			return
		}
		d.fail(n, "write true or false", "want true or false, found %s", describe(n))
	case reflect.Int:
		s, _ := scalarText(n)
		i, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			d.fail(n, "", "want a whole number, found %s", describe(n))
			return
		}
		v.SetInt(i)
	case reflect.Uint16:
		s, _ := scalarText(n)
		u, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			d.fail(n, "", "want a number from 1 to 65535, found %s", describe(n))
			return
		}
		v.SetUint(u)
	default:
		d.fail(n, "", "this value cannot be given here")
	}
}

// scalarText returns the text of a plain value as it was written.
func scalarText(n ast.Node) (string, bool) {
	switch t := n.(type) {
	case *ast.StringNode:
		return t.Value, utf8.ValidString(t.Value)
	case *ast.LiteralNode:
		return t.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func isScalar(n ast.Node) bool { _, ok := scalarText(n); return ok }

func isMapping(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// describe says what a value is, in words.
func describe(n ast.Node) string {
	switch t := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.IntegerNode, *ast.FloatNode:
		return "the number " + n.GetToken().Value
	case *ast.BoolNode:
		return n.GetToken().Value
	case *ast.StringNode:
		return strconv.Quote(t.Value)
	}
	return "something else"
}
