package api

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"hapair/agent/apiv1"
)

// FuzzBody: whatever arrives is either refused with a problem or means exactly
// what encoding it again would send.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", "[]", `{"force":true}`, `{"FORCE":true}`, `{"force":1}`, `{"wait_ms":1e3}`, `{"wait_ms":9223372036854775808}`,
		`{"reason":"\ud800"}`, `{"force":true,"force":false}`, "{}{}", "\xff", `{"a":{"b":[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		req, p := decodeBody[apiv1.PromoteRequest](bytes.NewReader(data))
		if p != nil {
			if p.Code == "" || p.Text == "" {
				t.Fatalf("an empty problem for %q", data)
			}
			return
		}
		again, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		same, p := decodeBody[apiv1.PromoteRequest](bytes.NewReader(again))
		if p != nil || !reflect.DeepEqual(req, same) {
			t.Fatalf("%q became %s, then %+v, %+v", data, again, same, p)
		}
	})
}
