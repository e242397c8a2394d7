//go:build lab

package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"hapair/fencing/watchdog"
	kernel "hapair/kernel/watchdog"
)

// labPatience bounds one word to the watchdog of a lab's node.
const labPatience = 5 * time.Second

// openWatchdog, in lab builds, opens the watchdog of a lab's node, a socket that
// behaves as one of the kernel's devices: see test/lab. Nothing else is opened: a
// device of the kernel is that of the machine the lab runs on.
var openWatchdog = func(path string, timeout time.Duration, _ bool) (watchdog.Timer, error) {
	if info, err := os.Stat(path); err != nil || info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("%s is not the watchdog of a lab's node: %w", path, errors.Join(kernel.ErrNotOne, err))
	}
	c, err := net.DialTimeout("unix", path, labPatience)
	if err != nil {
		return nil, fmt.Errorf("watchdog %s: %w", path, err)
	}
	w := &labWatchdog{c, kernel.Info{Path: path, Identity: "lab", Timeout: timeout, Known: true}}
	if err := c.SetReadDeadline(time.Now().Add(labPatience)); err != nil {
		return nil, err
	}
	if word, err := bufio.NewReader(c).ReadString('\n'); err != nil || strings.TrimSpace(word) != "armed" {
		return nil, fmt.Errorf("watchdog %s: %w: it says %q: %w", path, kernel.ErrBusy, word, err)
	}
	return w, w.say(fmt.Sprintf("timeout %d", timeout.Milliseconds()))
}

// resetNow, in lab builds, resets a node of a lab, and nothing else.
var resetNow = func(timer watchdog.Timer, device string) error {
	if w, ok := timer.(*labWatchdog); ok {
		return w.say("now")
	}
	w, err := openWatchdog(device, time.Minute, true)
	if err != nil {
		return err
	}
	return w.(*labWatchdog).say("now")
}

type labWatchdog struct {
	conn net.Conn
	info kernel.Info
}

func (w *labWatchdog) Info() kernel.Info { return w.info }
func (w *labWatchdog) Pet() error        { return w.say("pet") }
func (w *labWatchdog) Leave() error      { return w.conn.Close() }

func (w *labWatchdog) Disarm() error {
	if err := w.say("V"); err != nil {
		return err
	}
	return w.conn.Close()
}

func (w *labWatchdog) say(word string) error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(labPatience)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w.conn, word)
	return err
}

// bootID, in lab builds, tells the boots of a lab's node apart: nodes share the
// kernel of the machine, and each boot has a process 1 of its own.
var bootID = func() (string, error) {
	id, err := kernelBoot()
	if err != nil {
		return "", err
	}
	stat, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	name, err := os.Hostname()
	return fmt.Sprintf("%s-%s-%s", id, name, fields[19]), err
}
