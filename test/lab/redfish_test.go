package lab

import (
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The boards tell what a node's outlet does, to whoever knows the password, and
// switch nothing else.
func TestBoards(t *testing.T) {
	l := &Lab{dir: t.TempDir(), state: state{Options: Options{Nodes: []string{"alpha", "beta"}}, Nodes: []node{{Name: "alpha"}, {Name: "beta"}}}}
	for file, text := range map[string]string{"alpha/etc/cluster.psk": "secret\n", "alpha/power": "off\n", "beta/power": "on\n"} {
		file = filepath.Join(l.dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := l.Boards()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, body, password string) (int, string) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.SetBasicAuth(BoardsUser, password)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		text, err := io.ReadAll(w.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Code, string(text)
	}
	for _, c := range []struct {
		method, path, body, password string
		code                         int
		says                         string
	}{
		{"GET", "/redfish/v1", "", "secret", 200, `"Systems":{"@odata.id":"/redfish/v1/Systems"}`},
		{"GET", boardsRoot, "", "secret", 200, `/redfish/v1/Systems/beta`},
		{"GET", boardsRoot + "/alpha", "", "secret", 200, `"PowerState":"Off"`},
		{"GET", boardsRoot + "/alpha", "", "guess", 401, "login denied"},
		{"GET", boardsRoot + "/gamma", "", "secret", 404, "gamma"},
		{"GET", boardsRoot + "/beta", "", "secret", 503, "its process 1 is gone"},
		{"POST", boardsRoot + "/alpha" + boardsReset, `{"ResetType": "ForceOff"}`, "secret", 204, ""}, // it is off
		{"POST", boardsRoot + "/alpha" + boardsReset, `{"ResetType": "GracefulShutdown"}`, "secret", 400, "only On and ForceOff"},
		{"POST", boardsRoot + "/alpha" + boardsReset, `{"ResetType": "ForceOff"}`, "", 401, ""},
	} {
		if code, text := ask(c.method, c.path, c.body, c.password); code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %s: %d: %s", c.method, c.path, c.body, code, text)
		}
	}
}
