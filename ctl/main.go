// Command hactl shows and changes a hapair node.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"hapair/ctl/commands"
)

// version is stamped by the build.
var version = "unknown"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out := int(os.Stdout.Fd())
	return commands.Main(ctx, os.Args[1:], commands.Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Version: version,
		Terminal: term.IsTerminal(out), InTerminal: term.IsTerminal(int(os.Stdin.Fd())),
		Columns: func() int {
			w, _, err := term.GetSize(out)
			if err != nil {
				return 0
			}
			return w
		},
	})
}
