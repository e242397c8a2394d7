package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Every key stands in docs/configuration.md, and so does every default.
func TestKeysDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	known := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(doc, -1) {
		known[m[1]] = true
	}
	var walk func(reflect.Type)
	n := 0
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ.PkgPath() != reflect.TypeFor[Config]().PkgPath() {
			return
		}
		for i := range typ.NumField() {
			if name, _, _ := strings.Cut(typ.Field(i).Tag.Get("yaml"), ","); name != "" {
				n++
				if !known[name] {
					t.Errorf("key %q is not in docs/configuration.md", name)
				}
			}
			walk(typ.Field(i).Type)
		}
	}
	walk(reflect.TypeFor[Config]())
	if n < 50 {
		t.Errorf("only %d keys looked at", n)
	}
	for _, d := range []time.Duration{DefaultProbe, DefaultLink, DefaultLease, DefaultRenew, DefaultGrace, DefaultMonitorTimeout} {
		if !strings.Contains(doc, "`"+d.String()+"`") {
			t.Errorf("default %s is not in docs/configuration.md", d)
		}
	}
}

// The examples of the document parse.
func TestDocumentedExamples(t *testing.T) {
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(data), -1)
	if len(blocks) < 2 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, b := range blocks {
		cfg, err := Parse("docs/configuration.md", []byte(b[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		if err := cfg.CheckImplemented(); err != nil {
			t.Error(err)
		}
	}
}
