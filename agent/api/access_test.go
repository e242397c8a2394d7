package api_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"hapair/agent/api"
)

// strangerMain is this test binary as another user: it looks and tries to change.
func strangerMain(sock string) {
	c := client(sock)
	for _, r := range []struct{ method, path string }{{"GET", "/v1/status"}, {"POST", "/v1/resources/pg/promote"}} {
		req, err := http.NewRequest(r.method, "http://agent"+r.path, nil)
		if err != nil {
			fmt.Println(err)
			continue
		}
		resp, err := c.Do(req)
		if err != nil {
			fmt.Println(err)
			continue
		}
		resp.Body.Close()
		fmt.Println(r.method, resp.StatusCode)
	}
}

// The kernel says who calls: another user may look, not change, unless the
// admin group says so.
func TestStranger(t *testing.T) {
	needRoot(t)
	const gid = 54321
	for _, c := range []struct {
		name   string
		opt    api.Options
		groups []uint32
		want   string
	}{
		{"stranger", api.Options{}, nil, "GET 200\nPOST 403\n"},
		{"member of another group", api.Options{HasAdminGID: true, AdminGID: gid}, []uint32{gid + 1}, "GET 200\nPOST 403\n"},
		{"admin by supplementary group", api.Options{HasAdminGID: true, AdminGID: gid}, []uint32{7, gid}, "GET 200\nPOST 200\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.opt)
			openWay(t, filepath.Dir(w.sock))
			if err := os.Chmod(w.sock, 0o666); err != nil {
				t.Fatal(err)
			}
			if out := asStranger(t, w.sock, c.groups); out != c.want {
				t.Error(out)
			}
		})
	}
}

// openWay lets everybody into a directory of the test.
func openWay(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// asStranger runs strangerMain as nobody in groups and returns what it says.
func asStranger(t *testing.T, sock string, groups []uint32) string {
	t.Helper()
	dir := t.TempDir()
	openWay(t, dir)
	self := filepath.Join(dir, "self")
	bin, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, bin, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env, cmd.Dir = []string{"HAPAIR_TEST_SOCKET=" + sock}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: groups}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// Members of the read group get through to the socket, also where an earlier
// agent left its directory closed; nobody else does.
func TestReadGroup(t *testing.T) {
	needRoot(t)
	const gid = 54321
	for _, mode := range []os.FileMode{0o700, 0o755} {
		dir := filepath.Join(t.TempDir(), "run")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		openWay(t, dir)
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		w := newWorldAt(t, api.Options{}, filepath.Join(dir, "agent.sock"), strconv.Itoa(gid))
		if out := asStranger(t, w.sock, []uint32{gid}); out != "GET 200\nPOST 403\n" {
			t.Errorf("directory %o, a member: %s", mode, out)
		}
		if out := asStranger(t, w.sock, []uint32{gid + 1}); strings.Count(out, "permission denied") != 2 {
			t.Errorf("directory %o, a stranger: %s", mode, out)
		}
	}
}
