package lab

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// WatchdogDevice is where the agent of a node finds the node's watchdog. It is a
// socket that process 1 listens to, and behaves as the kernel's devices do: to
// connect is to open it, which arms it; one process at a time has it; who closes it
// leaves it armed, unless the letter V came before. Agents built with the tag lab
// know what to say, a line each:
//
//	timeout MILLISECONDS, pet, V, now
//
// It answers "armed" to a connection, "busy" to one too many.
const WatchdogDevice = "/run/lab-watchdog"

// SBDDisk is the file by which data nodes fence each other with pills, as they see it.
func (l *Lab) SBDDisk() string { return filepath.Join(l.dir, "sbd") }

const (
	// watchdogAtFirst is the time-out of one that was not told another.
	watchdogAtFirst = 60 * time.Second
	// watchdogLate is for pets that came in time and were read late.
	watchdogLate = 100 * time.Millisecond
	// watchdogLet is how long the end of the last one who had it may take to be seen.
	watchdogLet = time.Second
)

// watchdogWord is what a process said that has the watchdog open; "" at the end.
type watchdogWord struct {
	conn net.Conn
	text string
}

// guard is the watchdog of this node. Die switches the node off.
type guard struct {
	die     func()
	words   chan watchdogWord
	timeout time.Duration
	timer   *time.Timer
	open    net.Conn // who has it, nil: nobody
	magic   bool     // it may be closed
}

// watchOver has the node switched off when its watchdog is not petted.
func watchOver(path string, die func()) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("the node's watchdog: %w", err)
	}
	g := &guard{die: die, words: make(chan watchdogWord), timeout: watchdogAtFirst, timer: time.NewTimer(time.Hour)}
	g.timer.Stop()
	conns := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // the node ends
			}
			conns <- c
		}
	}()
	go g.run(conns)
	return nil
}

func (g *guard) run(conns <-chan net.Conn) {
	for {
		select {
		case c := <-conns:
			g.take(c)
		case w := <-g.words:
			g.heed(w)
		case <-g.timer.C:
			g.expired()
		}
	}
}

// take opens the watchdog for a process, once the last one is gone.
func (g *guard) take(c net.Conn) {
	for late := time.After(watchdogLet); g.open != nil; {
		select {
		case w := <-g.words:
			g.heed(w)
		case <-late:
			_, _ = fmt.Fprintln(c, "busy") // it hears that it is closed
			_ = c.Close()
			return
		}
	}
	if _, err := fmt.Fprintln(c, "armed"); err != nil {
		_ = c.Close() // who wanted it is gone
		return
	}
	g.open, g.magic = c, false
	g.timer.Reset(g.timeout)
	go func() {
		for in := bufio.NewScanner(c); in.Scan(); {
			g.words <- watchdogWord{c, in.Text()}
		}
		g.words <- watchdogWord{conn: c}
	}()
}

// heed does as it is told.
func (g *guard) heed(w watchdogWord) {
	verb, rest, _ := strings.Cut(w.text, " ")
	switch {
	case w.conn != g.open:
	case verb == "":
		_ = w.conn.Close() // its other end is gone
		if g.open = nil; g.magic {
			g.timer.Stop()
		}
	case verb == "timeout":
		if ms, err := strconv.Atoi(rest); err == nil && ms > 0 {
			g.timeout = time.Duration(ms) * time.Millisecond
		}
		g.timer.Reset(g.timeout)
	case verb == "pet":
		g.magic = false
		g.timer.Reset(g.timeout)
	case verb == "V":
		g.magic = true
	case verb == "now":
		g.die()
	}
}

// expired switches the node off, unless a pet has come and was not read yet.
func (g *guard) expired() {
	select {
	case w := <-g.words:
		g.heed(w)
	case <-time.After(watchdogLate):
		fmt.Fprintf(os.Stderr, "node-init: the watchdog was not petted for %s\n", g.timeout)
		g.die()
	}
}
