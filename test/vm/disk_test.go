package vm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

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
