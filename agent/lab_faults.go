//go:build lab

package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"hapair/mirror/block"
	"hapair/test/fault"
)

// labFaultsVariable names the socket on which a lab build takes rules for its
// disks, one a line: the last part of the disk's path, or *, then a rule as
// [fault.ParseRule] reads it, or clear, or release. Each is answered by ok or by
// what is wrong with it.
const labFaultsVariable = "HAPAIR_LAB_FAULTS"

// labFaults are the disks of this process that fail when they are told to.
type labFaults struct {
	mu    sync.Mutex
	disks map[string]*fault.Disk
}

// wrap puts a disk under the rules; the first one opens the socket.
func (l *labFaults) wrap(path string, d block.Disk) block.Disk {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.disks == nil {
		l.disks = map[string]*fault.Disk{}
		if err := l.listen(os.Getenv(labFaultsVariable)); err != nil {
			fmt.Fprintln(os.Stderr, "lab faults:", err)
		}
	}
	f := fault.New(d)
	l.disks[filepath.Base(path)] = f
	return f
}

func (l *labFaults) listen(socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	in, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() { // ends with the process
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			go l.serve(c)
		}
	}()
	return nil
}

func (l *labFaults) serve(c net.Conn) {
	defer c.Close() //nolint:errcheck // nothing is lost with it
	for lines := bufio.NewScanner(c); lines.Scan(); {
		answer := "ok"
		if err := l.take(lines.Text()); err != nil {
			answer = err.Error()
		}
		if _, err := fmt.Fprintln(c, answer); err != nil {
			return
		}
	}
}

func (l *labFaults) take(line string) error {
	name, what, _ := strings.Cut(strings.TrimSpace(line), " ")
	var rule fault.Rule
	if what != "clear" && what != "release" {
		var err error
		if rule, err = fault.ParseRule(what); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	found := false
	for disk, d := range l.disks {
		if name != "*" && name != disk {
			continue
		}
		found = true
		switch what {
		case "clear":
			d.Clear()
		case "release":
			d.Release()
		default:
			d.Add(rule)
		}
	}
	if !found {
		return fmt.Errorf("no disk is called %q", name)
	}
	return nil
}
