package fuse_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/front/fronttest"
	"hapair/mirror/front/fuse"
)

// parked is set in the environment of a child whose volume never answers a flush.
const parked = "HAPAIR_TEST_FUSE_PARKED_AT"

func TestParkedChild(t *testing.T) {
	point := os.Getenv(parked)
	if point == "" {
		t.Skip("runs as the child of another test")
	}
	m := fronttest.NewMemory(fronttest.Geometry(4<<20), 0)
	m.Hold(block.Flush)
	go func() {
		dev, err := fuse.New(fuse.Config{Mountpoint: point}).Start(context.Background(), m, m.Geometry())
		fmt.Println("started", dev, err)
	}()
	m.AwaitHeld(1)
	fmt.Println("parked")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		t.Log("nobody killed the child:", err)
	}
}

// TestKilledWhileWaiting: a process that is killed while it waits for its own
// device goes away.
func TestKilledWhileWaiting(t *testing.T) {
	if err := fuse.Usable(); err != nil {
		t.Skipf("FUSE and loop devices: %v", err)
	}
	dir := t.TempDir()
	point := filepath.Join(dir, "fuse", "r0-0")
	child := exec.Command(os.Args[0], "-test.run=^TestParkedChild$")
	child.Env = append(os.Environ(), parked+"="+point)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "parked\n" {
		t.Errorf("the child says %q, %v", line, err)
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	connection := ""
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); f[4] == point {
			connection = strings.TrimPrefix(f[2], "0:")
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- child.Wait() }()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the killed child is still there")
		abortConnection(t, connection)
		<-gone
	}
	if err := fuse.New(fuse.Config{Mountpoint: point}).Clean(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, dir)
}

// abortConnection ends a FUSE connection that nobody serves.
func abortConnection(t *testing.T, number string) {
	control := t.TempDir()
	if err := unix.Mount("none", control, "fusectl", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(control, number, "abort"), []byte("1"), 0); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(control, 0); err != nil {
		t.Error(err)
	}
}
