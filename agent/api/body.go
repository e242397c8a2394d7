package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strings"

	"hapair/agent/apiv1"
)

// MaxBodyBytes bounds a request's body.
const MaxBodyBytes = 64 << 10

// decodeBody reads one JSON object strictly: no unknown field, no second
// value, exact field names. An empty body is the zero request.
func decodeBody[T any](body io.Reader) (T, *apiv1.Problem) {
	var req T
	data, err := io.ReadAll(io.LimitReader(body, MaxBodyBytes+1))
	if err != nil {
		return req, problem(apiv1.CodeBadRequest, "reading the body: "+err.Error(), "")
	}
	if len(data) > MaxBodyBytes {
		return req, problem(apiv1.CodeTooLarge, fmt.Sprintf("the body is larger than %d bytes", MaxBodyBytes), "")
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return req, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return req, jsonProblem(err)
	}
	if fields == nil {
		return req, problem(apiv1.CodeBadRequest, "the body is null; want a JSON object", "")
	}
	known := jsonFields(reflect.TypeFor[T]())
	for _, name := range sortedNames(fields) {
		if !known[name] {
			return req, problem(apiv1.CodeBadRequest, fmt.Sprintf("unknown field %q", name), knownHint(known))
		}
	}
	if err := json.Unmarshal(data, &req); err != nil {
		return req, jsonProblem(err)
	}
	return req, nil
}

func knownHint(known map[string]bool) string {
	if len(known) == 0 {
		return "this request has no fields"
	}
	return "known here: " + strings.Join(sortedNames(known), ", ")
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func jsonFields(t reflect.Type) map[string]bool {
	out := map[string]bool{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		out[name] = true
	}
	return out
}

func jsonProblem(err error) *apiv1.Problem {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return problem(apiv1.CodeBadRequest, fmt.Sprintf("not JSON at byte %d: %v", syntax.Offset, syntax), "")
	case errors.As(err, &kind) && kind.Field != "":
		return problem(apiv1.CodeBadRequest, fmt.Sprintf("field %q: want %s, found %s", kind.Field, jsonWord(kind.Type), kind.Value), "")
	case errors.As(err, &kind):
		return problem(apiv1.CodeBadRequest, fmt.Sprintf("want a JSON object, found %s", kind.Value), "")
	}
	return problem(apiv1.CodeBadRequest, "not JSON: "+err.Error(), "")
}

func jsonWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	}
	return t.String()
}

func problem(code, text, hint string) *apiv1.Problem {
	return &apiv1.Problem{Code: code, Text: text, Hint: hint}
}
