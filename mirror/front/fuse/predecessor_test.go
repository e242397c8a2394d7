package fuse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/front/fronttest"
	"hapair/mirror/front/fuse"
)

// predecessor is set in the environment of a child that offers a device at the
// mount point it names, until it is killed.
const predecessor = "HAPAIR_TEST_FUSE_AT"

func TestPredecessorChild(t *testing.T) {
	point := os.Getenv(predecessor)
	if point == "" {
		t.Skip("runs as the child of another test")
	}
	m := fronttest.NewMemory(fronttest.Geometry(4<<20), 0)
	dev, err := fuse.New(fuse.Config{Mountpoint: point}).Start(context.Background(), m, m.Geometry())
	fmt.Println("started", dev, err)
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		t.Log("nobody killed the child:", err)
	}
}

// TestKilledPredecessor: a process that dies with a holder on its device
// leaves a mount; its successor clears that and offers the volume anew. The
// old device detaches when its holder lets go.
func TestKilledPredecessor(t *testing.T) {
	if err := fuse.Usable(); err != nil {
		t.Skipf("FUSE and loop devices: %v", err)
	}
	dir := t.TempDir()
	point := filepath.Join(dir, "fuse", "r0-0")
	child := exec.Command(os.Args[0], "-test.run=^TestPredecessorChild$")
	child.Env = append(os.Environ(), predecessor+"="+point)
	// Held open, so that the child waits until it is killed.
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
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Fields(line)[1]
	held, err := os.OpenFile(old, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Dirty pages that only the dead process could write.
	if _, err := held.WriteAt(make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	m := memory(t, 4<<20)
	f := fuse.New(fuse.Config{Mountpoint: point})
	if _, err := f.Start(context.Background(), m, m.Geometry()); err == nil {
		t.Fatal("started beside a living predecessor")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the child was not killed")
	}
	if err := f.Clean(); err != nil {
		t.Fatal(err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), point) {
		t.Fatal("the dead mount is still there, or nobody knows", err)
	}
	dev, err := f.Start(context.Background(), m, m.Geometry())
	if err != nil {
		t.Fatal(err)
	}
	if dev == old {
		t.Fatalf("%s is offered again though it is held", dev)
	}
	if _, err := held.ReadAt(block.Aligned(4096), 2<<20); !errors.Is(err, unix.EIO) {
		t.Errorf("the old device reads with %v, want EIO", err)
	}
	if err := held.Close(); err != nil {
		t.Log("close of the old device:", err) // its dirty pages are lost, and it may say so
	}
	stop(t, f)
	nothingLeft(t, dir)
}
