package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"hapair/agent/config"
	"hapair/failover/vip/deadman"
	"hapair/kernel/writeout"
)

// version is stamped by the build.
var version = "0.1.0-dev"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	// exitConfig is EX_CONFIG, on which the unit does not start it again: it would
	// read the same file. Not 2, with which the runtime ends a panic.
	exitConfig = 78
)

// flags are the command line.
type flags struct {
	config  string
	node    string
	witness bool
	debug   bool
	version bool
}

func main() {
	var f flags
	flag.StringVar(&f.config, "config", "/etc/hapair/hapair.yaml", "configuration `file`, the same on every node")
	flag.StringVar(&f.node, "node", "", "`name` of this node; by default found by host name, then by address")
	flag.BoolVar(&f.witness, "witness", false, "be the witness: vote and keep the ledger, hold no data")
	flag.BoolVar(&f.debug, "debug", false, "log more")
	flag.BoolVar(&f.version, "version", false, "print the version and end")
	if len(os.Args) == 3 && os.Args[1] == deadman.Command { // see package deadman: not for people
		os.Exit(guardAddresses(os.Args[2]))
	}
	flag.Parse()
	os.Exit(command(f))
}

func guardAddresses(lock string) int {
	if err := deadman.Serve(lock); err != nil {
		fmt.Fprintf(os.Stderr, "haagent deadman: %v\n", err)
		return exitFailed
	}
	return exitOK
}

func command(f flags) int {
	if f.version {
		fmt.Printf("haagent %s (%s)\n", version, runtime.Version())
		return exitOK
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "haagent: %q is not expected; see haagent -help\n", flag.Args())
		return exitUsage
	}
	var lacks []error
	if !f.witness { // it serves no device: nobody's writes wait for it
		lacks = writeout.Prepare()
	}
	cfg, self, err := load(f)
	if err != nil {
		fmt.Fprintf(os.Stderr, "haagent: %v\n", err)
		return exitConfig
	}
	log, err := logger(f.debug)
	if err != nil {
		fmt.Fprintf(os.Stderr, "haagent: %v\n", err)
		return exitFailed
	}
	for _, err := range lacks {
		log.Warn("when memory is short this process may wait for its own writes", zap.Error(err))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err = run(ctx, cfg, self, log)
	if err != nil {
		log.Error("haagent ends", zap.Error(err))
		return exitFailed
	}
	return exitOK
}

// load reads the configuration and finds out who this node is.
func load(f flags) (*config.Config, string, error) {
	cfg, err := config.Load(f.config)
	if err != nil {
		return nil, "", err
	}
	self := f.node
	if self == "" {
		if self, err = whoAmI(cfg); err != nil {
			return nil, "", err
		}
	}
	switch {
	case f.witness && !cfg.IsWitness(self):
		return nil, "", fmt.Errorf("%s: --witness, but this node is %q and the configured witness is another; start it without --witness", f.config, self)
	case !f.witness && cfg.IsWitness(self):
		return nil, "", fmt.Errorf("%s: this node is the witness %q; start it with --witness", f.config, self)
	case !f.witness && cfg.Node(self) == nil:
		return nil, "", fmt.Errorf("%s: node %q is not configured; nodes are %v", f.config, self, cfg.NodeNames())
	}
	return cfg, self, cfg.CheckImplemented()
}

func whoAmI(cfg *config.Config) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find the host name: %w", err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("list local addresses: %w", err)
	}
	var local []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			local = append(local, p.Addr())
		}
	}
	return cfg.Self(host, local)
}

func logger(debug bool) (*zap.Logger, error) {
	c := zap.NewProductionConfig()
	c.Encoding = "console"
	c.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	c.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
	c.DisableCaller, c.DisableStacktrace, c.Sampling = true, true, nil
	if debug {
		c.Level = zap.NewAtomicLevelAt(zap.DebugLevel)
	}
	log, err := c.Build()
	return log, errors.Join(err)
}
