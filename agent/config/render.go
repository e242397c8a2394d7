package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Render returns the effective configuration, every default written out. It
// parses again to an equal Config.
func (c *Config) Render() string {
	out, err := yaml.MarshalWithOptions(encode(reflect.ValueOf(*c)), yaml.Indent(2), yaml.IndentSequence(true))
	if err != nil {
		// Only plain maps, lists and texts are handed over.
		panic(fmt.Sprintf("render configuration: %v", err))
	}
	return string(out)
}

// encode turns a value into what the YAML library writes in the given order.
func encode(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
	case Size:
		return x.String()
	case PerNode:
		if x.All != "" {
			return x.All
		}
		return x.ByNode
	case map[string]string, bool:
		return x
	case encoding.TextMarshaler:
		if text, err := x.MarshalText(); err == nil {
			return string(text)
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		return encode(v.Elem())
	case reflect.Struct:
		return encodeStruct(v)
	case reflect.Slice:
		return encodeSlice(v)
	case reflect.String:
		return v.String()
	case reflect.Int:
		return v.Int()
	case reflect.Uint16:
		return v.Uint()
	}
	return fmt.Sprint(v.Interface())
}

func encodeStruct(v reflect.Value) yaml.MapSlice {
	out := yaml.MapSlice{}
	for i := range v.NumField() {
		name, option, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name == "" || option == "omitempty" && empty(v.Field(i)) {
			continue
		}
		out = append(out, yaml.MapItem{Key: name, Value: encode(v.Field(i))})
	}
	return out
}

func empty(v reflect.Value) bool {
	if p, ok := v.Interface().(PerNode); ok {
		return p.IsZero()
	}
	return v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0
}

func encodeSlice(v reflect.Value) any {
	elem := v.Type().Elem()
	if elem.Kind() == reflect.Struct {
		if key := taggedField(elem, "key"); key >= 0 {
			return encodeKeyed(v, key, taggedField(elem, "value"))
		}
	}
	out := make([]any, 0, v.Len())
	for i := range v.Len() {
		out = append(out, encode(v.Index(i)))
	}
	return out
}

func encodeKeyed(v reflect.Value, key, value int) yaml.MapSlice {
	out := yaml.MapSlice{}
	for i := range v.Len() {
		e := v.Index(i)
		item := yaml.MapItem{Key: e.Field(key).String()}
		if value >= 0 {
			item.Value = encode(e.Field(value))
		} else {
			item.Value = encode(e)
		}
		out = append(out, item)
	}
	return out
}
