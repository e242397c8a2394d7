package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"hapair/agent/api"
	"hapair/agent/api/apitest"
	"hapair/agent/apiv1"
)

func TestMain(m *testing.M) {
	if sock := os.Getenv("HAPAIR_TEST_SOCKET"); sock != "" {
		strangerMain(sock)
		return
	}
	goleak.VerifyTestMain(m)
}

// world is a server on a socket with a fake agent behind it.
type world struct {
	*apitest.Backend
	sock   string
	client *http.Client
	srv    *api.Server
}

func client(sock string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sock)
	}}}
}

func newWorld(t *testing.T, opt api.Options) *world {
	t.Helper()
	return newWorldAt(t, opt, filepath.Join(t.TempDir(), "agent.sock"), "")
}

func newWorldAt(t *testing.T, opt api.Options, sock, group string) *world {
	t.Helper()
	w := &world{Backend: apitest.New(apitest.Sample(), time.Now), sock: sock}
	opt.Backend, opt.Version = w.Backend, apiv1.Version{Version: "1.0.0", Node: "alpha"}
	srv, err := api.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := api.Listen(w.sock, group)
	if err != nil {
		t.Fatal(err)
	}
	w.srv, w.client = srv, client(w.sock)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		w.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(srv.Shutdown(ctx), <-done); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(w.sock); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return w
}

func (w *world) do(t *testing.T, method, path, body string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, data
}

func (w *world) problem(t *testing.T, method, path, body string) apiv1.Problem {
	t.Helper()
	code, data := w.do(t, method, path, body)
	var e apiv1.ErrorBody
	if err := json.Unmarshal(data, &e); err != nil || e.Error.Code == "" || e.Error.Text == "" || code < 400 {
		t.Fatalf("%s %s: not a problem: %d %s", method, path, code, data)
	}
	return e.Error
}

func needRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs uid 0: changes are for root")
	}
}

// A status comes through whole, and no list in it is null.
func TestStatus(t *testing.T) {
	w := newWorld(t, api.Options{})
	code, data := w.do(t, "GET", "/v1/status", "")
	var st apiv1.Status
	if err := json.Unmarshal(data, &st); err != nil || code != 200 {
		t.Fatalf("%d %v %s", code, err, data)
	}
	if r := st.Resource("pg"); r == nil || r.Token != 12 || r.Peers[0].Path != "crossover" {
		t.Errorf("got %s", data)
	}
	w.SetStatus(apiv1.Status{Resources: []apiv1.Resource{{Name: "x"}}, Members: []apiv1.Member{{Name: "y"}}})
	if _, data = w.do(t, "GET", "/v1/status", ""); bytes.Contains(data, []byte("null")) {
		t.Errorf("null in %s", data)
	}
}

// Every verb reaches its method with its request.
func TestVerbs(t *testing.T) {
	needRoot(t)
	w := newWorld(t, api.Options{})
	for _, c := range []struct{ path, body, asked string }{
		{"/v1/resources/pg/promote", `{"force":true,"reason":"drill"}`, "promote pg {Force:true Reason:drill WaitMS:0}"},
		{"/v1/resources/pg/demote", ``, "demote pg {Force:false Reason: WaitMS:0}"},
		{"/v1/resources/pg/switchover", `{"to":"beta"}`, "switchover pg {To:beta Force:false WaitMS:0}"},
		{"/v1/resources/pg/connect", `{"discard_my_data":true}`, "connect pg {DiscardMyData:true WithoutImage:false}"},
		{"/v1/resources/pg/disconnect", `{}`, "disconnect pg {Force:false}"},
		{"/v1/resources/pg/invalidate", `{"peer":true}`, "invalidate pg {Peer:true Volume:<nil>}"},
		{"/v1/resources/pg/attach", `{"create_metadata":true}`, "attach pg {CreateMetadata:true Force:false}"},
		{"/v1/resources/pg/pause-sync", ``, "pause-sync pg {}"},
		{"/v1/resources/pg/resume-sync", ``, "resume-sync pg {}"},
		{"/v1/maintenance", `{"on":true}`, "maintenance  {On:true Reason:}"},
		{"/v1/standby", `{"node":"beta","on":true}`, "standby  {Node:beta On:true Reason:}"},
		{"/v1/resources/pg/create-metadata", `{"assume_clean":true}`, "create-metadata pg {Volume:<nil> AssumeClean:true Force:false}"},
	} {
		code, data := w.do(t, "POST", c.path, c.body)
		asked := w.Asked()
		if code != 200 || len(asked) == 0 || asked[len(asked)-1] != c.asked {
			t.Errorf("%s: %d %s; asked %q, want %q", c.path, code, data, asked, c.asked)
		}
	}
}

// Everything malformed is refused with the right code, and reaches nobody.
func TestRefusals(t *testing.T) {
	needRoot(t)
	w := newWorld(t, api.Options{})
	for _, c := range []struct{ method, path, body, code string }{
		{"GET", "/v2/status", "", apiv1.CodeNotFound},
		{"GET", "/", "", apiv1.CodeNotFound},
		{"POST", "/v1/status", "", apiv1.CodeBadMethod},
		{"GET", "/v1/resources/pg/promote", "", apiv1.CodeBadMethod},
		{"DELETE", "/v1/resources/pg/explain", "", apiv1.CodeBadMethod},
		{"POST", "/v1/resources/nope/promote", "", apiv1.CodeNotFound},
		{"GET", "/v1/resources/nope/explain", "", apiv1.CodeNotFound},
		{"POST", "/v1/resources/pg/promote", "{", apiv1.CodeBadRequest},
		{"POST", "/v1/resources/pg/promote", "[]", apiv1.CodeBadRequest},
		{"POST", "/v1/resources/pg/promote", "null", apiv1.CodeBadRequest},
		{"POST", "/v1/resources/pg/promote", `{} {}`, apiv1.CodeBadRequest},
		{"POST", "/v1/resources/pg/promote", `{"forse":true}`, apiv1.CodeBadRequest},
		{"POST", "/v1/resources/pg/promote", `{"Force":true}`, apiv1.CodeBadRequest},
		{"POST", "/v1/resources/pg/promote", `{"force":"yes"}`, apiv1.CodeBadRequest},
		{"POST", "/v1/resources/pg/promote", `{"wait_ms":-1}`, apiv1.CodeBadRequest},
		{"POST", "/v1/resources/pg/promote", `{"reason":"` + strings.Repeat("x", api.MaxBodyBytes) + `"}`, apiv1.CodeTooLarge},
		{"GET", "/v1/events?since=soon", "", apiv1.CodeBadRequest},
		{"POST", "/v1/resources/pg/detach", "", apiv1.CodeNotImplemented},
		{"POST", "/v1/doctor", "", apiv1.CodeNotImplemented},
		{"GET", "/v1/fence", "", apiv1.CodeBadMethod},
		{"POST", "/v1/fence", `{"wait_ms":-1}`, apiv1.CodeBadRequest},
		{"POST", "/v1/fence-confirm", `{"i_have_checked":"yes"}`, apiv1.CodeBadRequest},
		{"GET", "/v1/config/apply", "", apiv1.CodeBadMethod},
		{"POST", "/v1/replace", `{"checked":"yes"}`, apiv1.CodeBadRequest},
	} {
		if p := w.problem(t, c.method, c.path, c.body); p.Code != c.code {
			t.Errorf("%s %s %.40s: %+v, want %s", c.method, c.path, c.body, p, c.code)
		}
	}
	if asked := w.Asked(); len(asked) != 0 {
		t.Errorf("a malformed request reached the agent: %q", asked)
	}
}

// What a backend refuses arrives as it was said; a foreign error is internal.
func TestBackendErrors(t *testing.T) {
	needRoot(t)
	w := newWorld(t, api.Options{})
	said := &apiv1.Problem{Code: apiv1.CodeInUse, Text: "held open by mount (pid 7)", Hint: "umount /srv/pg"}
	w.Fail("demote", fmt.Errorf("demote pg: %w", said))
	p := w.problem(t, "POST", "/v1/resources/pg/demote", "")
	if p.Code != said.Code || p.Text != "demote pg: held open by mount (pid 7)" || p.Hint != said.Hint {
		t.Errorf("got %+v", p)
	}
	w.Fail("demote", errors.New("out of luck"))
	if p := w.problem(t, "POST", "/v1/resources/pg/demote", ""); p.Code != apiv1.CodeInternal {
		t.Errorf("got %+v", p)
	}
	w.Fail("demote", context.DeadlineExceeded)
	if p := w.problem(t, "POST", "/v1/resources/pg/demote", ""); p.Code != apiv1.CodeTimeout {
		t.Errorf("got %+v", p)
	}
}

// stream opens the events and returns a reader of "field: value" blocks.
func (w *world) stream(t *testing.T, query string) (*bufio.Scanner, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://agent/v1/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Fatalf("content type %q", ct)
	}
	return bufio.NewScanner(resp.Body), func() { cancel(); resp.Body.Close() }
}

func nextData(t *testing.T, s *bufio.Scanner) string {
	t.Helper()
	for s.Scan() {
		if data, ok := strings.CutPrefix(s.Text(), "data: "); ok {
			return data
		}
	}
	t.Fatalf("the stream ended: %v", s.Err())
	return ""
}

func TestEvents(t *testing.T) {
	w := newWorld(t, api.Options{})
	w.Publish(apiv1.EventAgent, "", "started", nil)
	w.Publish(apiv1.EventRole, "pg", "promoted", map[string]string{"now": "Primary"})
	s, end := w.stream(t, "?since=1")
	defer end()
	var e apiv1.Event
	if err := json.Unmarshal([]byte(nextData(t, s)), &e); err != nil || e.Seq != 2 || e.Fields["now"] != "Primary" {
		t.Fatalf("%+v %v", e, err)
	}
	w.Publish(apiv1.EventDisk, "pg", "Outdated", nil)
	if err := json.Unmarshal([]byte(nextData(t, s)), &e); err != nil || e.Seq != 3 || e.Kind != apiv1.EventDisk {
		t.Fatalf("%+v %v", e, err)
	}
}

// A stop of the agent ends the streams with a word.
func TestEventsEndAtShutdown(t *testing.T) {
	b := apitest.New(apitest.Sample(), time.Now)
	srv, err := api.New(api.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "s")
	l, _, err := api.Listen(sock, "")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	w := &world{Backend: b, client: client(sock)}
	defer w.client.CloseIdleConnections()
	s, end := w.stream(t, "")
	defer end()
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if data := nextData(t, s); !strings.Contains(data, apiv1.CodeUnavailable) {
		t.Errorf("got %s", data)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A reader that does not read is dropped and told; the publisher never waits.
func TestSlowReader(t *testing.T) {
	h := api.NewHub("alpha", time.Now)
	slow, quick := h.Subscribe(api.SinceNow), h.Subscribe(api.SinceNow)
	for i := range api.QueuedEvents + 1 {
		h.Publish(apiv1.EventDisk, "pg", fmt.Sprint(i), nil)
		<-quick.C
	}
	n := 0
	for range slow.C {
		n++
	}
	if p := slow.Problem(); n != api.QueuedEvents || p == nil || p.Code != apiv1.CodeSlowReader {
		t.Errorf("%d events, then %+v", n, p)
	}
	if quick.Problem() != nil {
		t.Errorf("the quick one was dropped: %+v", quick.Problem())
	}
	quick.Close()
	quick.Close()
}

// Asking for more than is kept is answered with a note about the gap.
func TestForgottenEvents(t *testing.T) {
	h := api.NewHub("alpha", time.Now)
	for range api.KeptEvents + 10 {
		h.Publish(apiv1.EventDisk, "pg", "x", nil)
	}
	s := h.Subscribe(3)
	defer s.Close()
	first, second := <-s.C, <-s.C
	if first.Kind != apiv1.EventDropped || first.Text != "events 4 to 10 are no longer kept" || second.Seq != 11 {
		t.Errorf("%+v, %+v", first, second)
	}
}

func TestTooManySubscribers(t *testing.T) {
	h := api.NewHub("alpha", time.Now)
	for range api.MaxSubscribers {
		h.Subscribe(api.SinceNow)
	}
	if p := h.Subscribe(0).Problem(); p == nil || p.Code != apiv1.CodeUnavailable {
		t.Errorf("got %+v", p)
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t, api.Options{Registry: prometheus.NewPedanticRegistry()}) // which wants every metric described
	code, data := w.do(t, "GET", "/metrics", "")
	for _, want := range []string{
		`hapair_up 1`, `hapair_resource_primary{resource="pg"} 1`, `hapair_resource_in_sync{member="beta",resource="pg"} 1`,
		`hapair_volume_requests_total{op="write",resource="pg",volume="0"} 5e+06`, `hapair_quorum_voters 3`,
	} {
		if !strings.Contains(string(data), want+"\n") {
			t.Errorf("no %s in %d %s", want, code, data)
		}
	}
	st := apitest.Sample()
	st.Fencing = []apiv1.Fencing{{Node: "beta", Ready: true, RefusedTotal: 3, Devices: []apiv1.FenceDevice{{Name: "fence_ipmilan 10.0.0.1", Level: 2, Usable: true}}}}
	w.SetStatus(st)
	_, data = w.do(t, "GET", "/metrics", "")
	for _, want := range []string{
		`hapair_fence_ready{member="beta"} 1`, `hapair_fences_total{member="beta",outcome="refused"} 3`, `hapair_fence_under_way{member="beta"} 0`,
		`hapair_fence_device_usable{device="fence_ipmilan 10.0.0.1",level="2",member="beta"} 1`,
	} {
		if !strings.Contains(string(data), want+"\n") {
			t.Errorf("no %s in %s", want, data)
		}
	}
	st.Node = "gamma"
	for i := range st.Members {
		st.Members[i].Self = st.Members[i].Name == "gamma"
	}
	w.SetStatus(st)
	_, data = w.do(t, "GET", "/metrics", "")
	if text := string(data); !strings.Contains(text, `hapair_resource_in_sync{member="beta",resource="pg"} 1`+"\n") || strings.Contains(text, `resource_in_sync{member="gamma"`) || strings.Contains(text, "resource_primary{") {
		t.Errorf("a witness, without a copy of its own, tells %s", text)
	}
	w.Fail("status", errors.New("starting"))
	if _, data = w.do(t, "GET", "/metrics", ""); !strings.Contains(string(data), "hapair_up 0\n") {
		t.Errorf("got %s", data)
	}
}

func TestListen(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "run", "agent.sock")
	l, found, err := api.Listen(sock, "no-such-group-here")
	if err != nil || found {
		t.Fatalf("%v %v", found, err)
	}
	st, err := os.Stat(sock)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, _, err := api.Listen(sock, ""); !errors.Is(err, api.ErrInUse) {
		t.Errorf("a second agent: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	// A socket left by a crash is replaced.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if l, _, err = api.Listen(sock, ""); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(sock, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := api.Listen(sock, ""); err == nil {
		t.Error("a file was replaced")
	}
}

// Callers that connect and say nothing cannot take the agent's descriptors, and
// one that leaves makes room.
func TestConnectionLimit(t *testing.T) {
	w := newWorld(t, api.Options{})
	var idle []net.Conn
	for range api.MaxConns {
		c, err := net.Dial("unix", w.sock)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://agent/v1/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := w.client.Do(req); err == nil {
		resp.Body.Close()
		t.Error("one more than the limit was served")
	}
	for _, c := range idle {
		c.Close()
	}
	if code, body := w.do(t, "GET", "/v1/version", ""); code != 200 || strings.Contains(string(body), `""`) {
		t.Errorf("after they left: %d %s", code, body)
	}
}
