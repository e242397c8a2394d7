package vm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hapair/mirror/store"
	"hapair/test/fault"
	"hapair/test/script"
)

// A power cut leaves of a disk what was flushed, and nothing of the rest; and what
// it was told to do before is forgotten.
func TestDisk(t *testing.T) {
	const part = 64 << 10
	dir := t.TempDir()
	file := filepath.Join(dir, "disk")
	if err := makeFile(file, 4*part, false); err != nil {
		t.Fatal(err)
	}
	d, err := openDisk(file, filepath.Join(dir, "nbd"), fault.CacheOptions{}, false)
	if err != nil {
		t.Fatal(err)
	}
	cut := func() (lost int64) {
		t.Helper()
		lost, err := d.powerOff(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return lost
	}
	defer func() {
		cut()
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := d.powerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := func(last string) error {
		return exec.Command("qemu-io", "-t", "writeback", "-f", "raw", "-c", "write -P 170 0 65536", "-c", "flush", "-c", "write -P 187 65536 65536", "-c", last,
			"nbd+unix:///?socket="+d.socket).Run()
	}
	if err := client("abort"); err == nil { // like a killed QEMU: it flushes nothing in the end
		t.Fatal("qemu-io did not abort")
	}
	if lost := cut(); lost != part {
		t.Errorf("%d bytes lost, want %d", lost, part)
	}
	got, err := os.ReadFile(file)
	if want := append(bytes.Repeat([]byte{170}, part), make([]byte, 3*part)...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("not what was flushed, and nothing else: %v", err)
	}
	if err := d.powerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.tell(rules[script.DiskFails]); err != nil {
		t.Fatal(err)
	}
	if err := client("flush"); err == nil {
		t.Error("a disk that fails fails nothing")
	}
}

// What one machine has written to a shared disk another one reads at once, flushed or
// not, and reads still when the first has lost its power. A fault is of one machine's
// way only.
func TestSharedDisk(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "shared")
	if err := makeFile(file, sharedBytes, false); err != nil {
		t.Fatal(err)
	}
	medium, err := store.Open(file, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var ways [2]*disk
	for i := range ways {
		ways[i] = openShared(file, filepath.Join(dir, fmt.Sprint(i)), medium)
		if err := ways[i].powerOn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	client := func(i int, command string) bool {
		out, err := exec.Command("qemu-io", "-t", "writeback", "-f", "raw", "-c", command, "nbd+unix:///?socket="+ways[i].socket).CombinedOutput()
		return err == nil && !strings.Contains(string(out), "failed")
	}
	if !client(0, "write -P 170 0 4096") || !client(1, "read -P 170 0 4096") || client(1, "read -P 171 0 4096") {
		t.Error("the second machine does not read what the first has written")
	}
	if err := ways[0].tell("write err=io"); err != nil {
		t.Fatal(err)
	}
	if client(0, "write -P 187 0 4096") || !client(0, "read -P 170 0 4096") || !client(1, "write -P 204 0 4096") || !client(0, "read -P 204 0 4096") {
		t.Error("not the first machine's writes alone fail")
	}
	for i := range ways {
		if lost, err := ways[i].powerOff(t.Context()); err != nil || lost != 0 {
			t.Errorf("%d bytes lost: %v", lost, err)
		}
		if err := ways[i].close(); err != nil {
			t.Error(err)
		}
		if i == 0 && !client(1, "read -P 204 0 4096") {
			t.Error("the second machine lost the disk with the first")
		}
	}
	if err := medium.Close(); err != nil {
		t.Error(err)
	}
}
