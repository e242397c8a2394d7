package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hapair/agent/api"
	"hapair/agent/api/apitest"
	"hapair/agent/apiv1"
)

// waits is a backend whose maintenance takes until it is broken off, or, deaf to that,
// until the test lets it go.
type waits struct {
	*apitest.Backend
	began  chan struct{}
	let    chan struct{}
	deaf   bool
	refuse error // nil: the context's
}

func (b *waits) Maintenance(ctx context.Context, _ apiv1.MaintenanceRequest) (apiv1.Changed, error) {
	close(b.began)
	if b.deaf {
		<-b.let
		return apiv1.Changed{}, nil
	}
	<-ctx.Done()
	if b.refuse != nil {
		return apiv1.Changed{}, b.refuse
	}
	return apiv1.Changed{}, ctx.Err()
}

// serveWaits has a request wait in a server; answered gives what came of it.
func serveWaits(t *testing.T, b *waits) (srv *api.Server, served <-chan error, answered <-chan apiv1.Problem) {
	t.Helper()
	b.Backend, b.began, b.let = apitest.New(apitest.Sample(), time.Now), make(chan struct{}), make(chan struct{})
	srv, err := api.New(api.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "s")
	l, _, err := api.Listen(sock, "")
	if err != nil {
		t.Fatal(err)
	}
	done, got := make(chan error, 1), make(chan apiv1.Problem, 1)
	go func() { done <- srv.Serve(l) }()
	w := &world{client: client(sock)}
	t.Cleanup(w.client.CloseIdleConnections)
	go func() {
		defer close(got)
		resp, err := w.client.Post("http://agent/v1/maintenance", "application/json", strings.NewReader(`{"on":true}`))
		if err != nil {
			return // the connection was closed
		}
		defer resp.Body.Close()
		var e apiv1.ErrorBody
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		got <- e.Error
	}()
	<-b.began
	return srv, done, got
}

// A request that waits does not hold up a stop: it is broken off, and its caller told.
func TestShutdownBreaksOffWhatWaits(t *testing.T) {
	needRoot(t)
	for _, refuse := range []error{nil, &apiv1.Problem{Code: apiv1.CodeRefused, Text: "fence of beta: unknown", Hint: "look at it"}} {
		b := &waits{refuse: refuse}
		srv, served, answered := serveWaits(t, b)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := errors.Join(srv.Shutdown(ctx), <-served); err != nil {
			t.Error(err)
		}
		if ctx.Err() != nil {
			t.Error("the request held the stop up")
		}
		p := <-answered
		if p.Code != apiv1.CodeUnavailable || !strings.HasPrefix(p.Text, "the agent stops") || refuse != nil && (!strings.Contains(p.Text, "fence of beta") || p.Hint != "look at it") {
			t.Errorf("told %+v", p)
		}
	}
}

// One that does not let itself be broken off does not make a failure of the stop.
func TestShutdownLeavesTheDeafBehind(t *testing.T) {
	needRoot(t)
	b := &waits{deaf: true}
	srv, served, answered := serveWaits(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := errors.Join(srv.Shutdown(ctx), <-served); err != nil {
		t.Error(err)
	}
	if p, told := <-answered; told {
		t.Errorf("told %+v", p)
	}
	close(b.let)
}
