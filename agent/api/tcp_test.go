package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hapair/agent/api"
)

// scrape asks for the metrics at an address, over a connection of its own.
func scrape(address string) (string, error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := c.Get("http://" + address + "/metrics")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// serveMetrics serves them at address until the test ends, and tells what failed.
func serveMetrics(t *testing.T, w *world, address string) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		w.srv.ServeMetrics(ctx, api.MetricsTCP{Address: address, Retry: 5 * time.Millisecond, Failed: func(err error) { failed <- err }})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return failed
}

// awaitMetrics waits until they are served.
func awaitMetrics(t *testing.T, address string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := scrape(address)
		if err == nil && strings.Contains(text, "hapair_up 1\n") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no metrics: %v %s", err, text)
		}
	}
}

// A port that another process has is told once, and served from when it is free.
func TestMetricsTCPWaitsForItsPort(t *testing.T) {
	w := newWorld(t, api.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	failed := serveMetrics(t, w, address)
	if err := <-failed; !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("told %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	awaitMetrics(t, address)
	if len(failed) > 0 {
		t.Errorf("told again: %v", <-failed)
	}
}

// An address that this machine does not have is listened on: the configuration is the
// same on every node.
func TestMetricsTCPOnAnAddressOfAnother(t *testing.T) {
	w := newWorld(t, api.Options{})
	const address = "198.51.100.7:9790"
	failed := serveMetrics(t, w, address)
	second := serveMetrics(t, w, address) // finds it taken, so one of the two has it
	var err error
	select {
	case err = <-failed:
	case err = <-second:
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("told %v", err)
	}
}

// Connections that ask for nothing are bounded in number, and one that ends makes room.
func TestMetricsTCPBoundsConnections(t *testing.T) {
	w := newWorld(t, api.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	serveMetrics(t, w, address)
	awaitMetrics(t, address)
	var idle []net.Conn
	for range api.MaxConns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, _ := c.Read(make([]byte, 1)); n > 0 {
		t.Error("one more than the limit was served")
	}
	for _, c := range idle {
		c.Close()
	}
	awaitMetrics(t, address)
}
