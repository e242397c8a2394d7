package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"hapair/test/vm/spec"
)

// waited are the processes that a goroutine here waits for.
var waited = struct {
	sync.Mutex
	pids map[int]bool
}{pids: map[int]bool{}}

// begin starts a command that is waited for.
func begin(c *exec.Cmd) error {
	waited.Lock()
	defer waited.Unlock()
	err := c.Start()
	if err == nil {
		waited.pids[c.Process.Pid] = true
	}
	return err
}

func end(c *exec.Cmd) error {
	err := c.Wait()
	waited.Lock()
	defer waited.Unlock()
	delete(waited.pids, c.Process.Pid)
	return err
}

// bury waits for a dead process that nobody here waits for.
func bury(pid int) {
	waited.Lock()
	defer waited.Unlock()
	if !waited.pids[pid] {
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // it may be gone
	}
}

func refuse(w http.ResponseWriter, err error) { http.Error(w, err.Error(), http.StatusConflict) }

func (g *guest) start(w http.ResponseWriter, _ *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.agent != nil {
		select {
		case <-g.ended:
		default:
			refuse(w, errors.New("the agent runs already"))
			return
		}
	}
	log, err := os.OpenFile(spec.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		refuse(w, err)
		return
	}
	defer log.Close() //nolint:errcheck // the agent has its own copy
	c := exec.Command(g.spec.Agent[0], g.spec.Agent[1:]...)
	c.Env, c.Stdout, c.Stderr = g.spec.Env, log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := begin(c); err != nil {
		refuse(w, err)
		return
	}
	ended := make(chan struct{})
	g.agent, g.ended = c, ended
	go func() {
		fmt.Println("guest: the agent ended:", end(c))
		close(ended)
	}()
}

func (g *guest) signal(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	c, ended := g.agent, g.ended
	g.mu.Unlock()
	n, err := strconv.Atoi(r.FormValue("sig"))
	if err != nil || c == nil {
		refuse(w, fmt.Errorf("no agent, or no signal: %w", err))
		return
	}
	sig := syscall.Signal(n)
	if err := c.Process.Signal(sig); err != nil {
		refuse(w, err)
		return
	}
	if sig == syscall.SIGKILL || sig == syscall.SIGTERM {
		select {
		case <-ended:
		case <-r.Context().Done():
		}
	}
}

// exec runs a command as long as the request lasts. The last line of the answer is
// how it ended.
func (g *guest) exec(w http.ResponseWriter, r *http.Request) {
	var argv []string
	if err := json.NewDecoder(r.Body).Decode(&argv); err != nil || len(argv) == 0 {
		refuse(w, fmt.Errorf("no command: %w", err))
		return
	}
	c := exec.CommandContext(r.Context(), argv[0], argv[1:]...)
	c.Env, c.Stdout, c.Stderr = g.spec.Env, flushing{w}, flushing{w}
	err := begin(c)
	if err == nil {
		err = end(c)
	}
	text := "ok"
	if err != nil {
		text = err.Error()
	}
	_, _ = fmt.Fprintf(w, "\n%s%s\n", spec.Ended, text) // whoever asked may be gone
}

// flushing sends what is written at once.
type flushing struct{ w http.ResponseWriter }

func (f flushing) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if f, ok := f.w.(http.Flusher); ok {
		f.Flush()
	}
	return n, err
}

// api hands a request to the agent.
func (g *guest) api(w http.ResponseWriter, r *http.Request) {
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "agent"})
	p.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", spec.AgentSocket)
	}}
	p.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) { // told to whoever asks, not on the console
		http.Error(w, err.Error(), http.StatusBadGateway)
	}
	r.URL.Path = strings.TrimPrefix(r.URL.Path, "/api")
	p.ServeHTTP(w, r)
}
