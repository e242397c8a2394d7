package apiv1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"hapair/test/release"
)

// spoken is everything that release 0 answered with, each field of it set.
func spoken() map[string]any {
	out := map[string]any{"status": new(Status), "event": new(Event), "changed": new(Changed), "error": new(ErrorBody)}
	for _, x := range out {
		n := int64(0)
		setAll(reflect.ValueOf(x).Elem(), &n)
	}
	return out
}

// setAll sets every field to something that is not its zero value.
func setAll(v reflect.Value, n *int64) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(*n)
	case reflect.Uint64, reflect.Uint32, reflect.Uint16, reflect.Uint8:
		v.SetUint(uint64(*n))
	case reflect.Float64:
		v.SetFloat(float64(*n) + 0.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		setAll(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		setAll(v.Index(0), n)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		setAll(key, n)
		setAll(value, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1700000000+*n, 0).UTC()))
			return
		}
		for i := range v.NumField() {
			setAll(v.Field(i), n)
		}
	default:
		panic(fmt.Sprintf("a %s in the API", v.Type()))
	}
}

// What an agent of release 0 answers is read today, to the last field; and a client
// of release 0 finds all it knew in what today's agent answers.
func TestAnswersOfRelease0(t *testing.T) {
	for name, x := range spoken() {
		file := release.Frozen(t, "0", name+".json", func() []byte {
			b, err := json.MarshalIndent(x, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			return b
		})
		now := reflect.New(reflect.TypeOf(x).Elem()).Interface()
		d := json.NewDecoder(bytes.NewReader(file))
		d.DisallowUnknownFields()
		if err := d.Decode(now); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		again, err := json.Marshal(now)
		if err != nil {
			t.Fatal(err)
		}
		var was, is any
		for b, to := range map[*[]byte]*any{&file: &was, &again: &is} {
			if err := json.Unmarshal(*b, to); err != nil {
				t.Fatal(err)
			}
		}
		if lost := missing(name, was, is); lost != "" {
			t.Error(lost)
		}
	}
}

// missing says what of one JSON value is not in another as it was, "" when all is.
func missing(at string, was, is any) string {
	switch w := was.(type) {
	case map[string]any:
		i, ok := is.(map[string]any)
		if !ok {
			return fmt.Sprintf("%s was an object and is %v", at, is)
		}
		for k, v := range w {
			if lost := missing(at+"."+k, v, i[k]); lost != "" {
				return lost
			}
		}
	case []any:
		i, ok := is.([]any)
		if !ok || len(i) != len(w) {
			return fmt.Sprintf("%s was %v and is %v", at, was, is)
		}
		for n, v := range w {
			if lost := missing(fmt.Sprint(at, "[", n, "]"), v, i[n]); lost != "" {
				return lost
			}
		}
	default:
		if !reflect.DeepEqual(was, is) {
			return fmt.Sprintf("%s was %v and is %v", at, was, is)
		}
	}
	return ""
}
