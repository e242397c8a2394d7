package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"hapair/kernel/freebind"
)

// Times of the metrics over TCP.
const (
	metricsTimeout = 10 * time.Second // one scrape, or its request
	metricsIdle    = 2 * time.Minute  // longer than it usually is from one scrape to the next
	metricsRetry   = 10 * time.Second
)

// MetricsTCP says where the metrics are served over TCP.
type MetricsTCP struct {
	Address string // host:port; the address need not be configured on an interface yet
	// Retry is the time between two attempts to listen; 0 takes 10 s.
	Retry time.Duration
	// Failed is told why they are not served, once until they have been. It should be
	// quick.
	Failed func(error)
}

// ServeMetrics serves the metrics alone over TCP until ctx ends. Where that cannot be
// it is tried again and again: it is no reason for a node to be without its resources.
func (s *Server) ServeMetrics(ctx context.Context, opt MetricsTCP) {
	if opt.Retry == 0 {
		opt.Retry = metricsRetry
	}
	for told := false; ; {
		l, err := listenFree(ctx, opt.Address)
		if err == nil {
			told = false
			s.opt.Log.Info("metrics are served", zap.Stringer("address", l.Addr()))
			err = s.serveMetricsOn(ctx, l)
		}
		if ctx.Err() != nil {
			return
		}
		if !told {
			told = true
			opt.Failed(err)
		}
		select {
		case <-time.After(opt.Retry): // nothing says that a port has become free
		case <-ctx.Done():
			return
		}
	}
}

// serveMetricsOn serves on l, and closes it, until ctx ends; the error is why it ended
// before.
func (s *Server) serveMetricsOn(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics)
	h := &http.Server{Handler: mux, ReadHeaderTimeout: metricsTimeout, ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout,
		IdleTimeout: metricsIdle, MaxHeaderBytes: 16 << 10, ErrorLog: zap.NewStdLog(s.opt.Log)}
	done := make(chan error, 1)
	go func() { done <- h.Serve(newLimited(l)) }()
	select {
	case err := <-done:
		return errors.Join(err, h.Close())
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if err := h.Shutdown(grace); err != nil { // a scrape is nothing to wait for
		s.opt.Log.Debug("a scrape was broken off", zap.Error(errors.Join(err, h.Close())))
	}
	<-done
	return nil
}

// listenFree listens also on an address that no interface has yet.
func listenFree(ctx context.Context, address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: freebind.Control}
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	return l, nil
}
