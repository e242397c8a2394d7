package fuse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/front/fronttest"
	"hapair/mirror/front/fuse"
	"hapair/mirror/front/holder"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start offers a handler for one test, and sees that nothing is left after it.
func start(t *testing.T, h block.Handler, g block.Geometry) (f *fuse.Fuse, dev string) {
	t.Helper()
	if err := fuse.Usable(); err != nil {
		t.Skipf("FUSE and loop devices: %v", err)
	}
	dir := t.TempDir()
	f = fuse.New(fuse.Config{Mountpoint: filepath.Join(dir, "fuse", "r0-0"), Link: filepath.Join(dir, "dev", "r0", "0")})
	link, err := f.Start(context.Background(), h, g)
	if err != nil {
		t.Fatal(err)
	}
	dev, err = os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Abort(context.Background()); err != nil {
			t.Error(err)
		}
		nothingLeft(t, dir)
	})
	return f, dev
}

// nothingLeft checks mounts, loop devices and files below dir.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), dir) {
		t.Errorf("a mount below %s is left:\n%s", dir, text)
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range backing {
		if path, err := os.ReadFile(b); err == nil && strings.Contains(string(path), dir) {
			t.Errorf("%s is left on %s", b, path)
		}
	}
	for _, sub := range []string{"fuse", "dev/r0"} {
		left, err := os.ReadDir(filepath.Join(dir, sub))
		if err == nil && len(left) > 0 {
			t.Errorf("%s is left in %s", left[0].Name(), sub)
		}
	}
}

// memory is a RAM volume whose requests complete on two goroutines.
func memory(t *testing.T, size int64) *fronttest.Memory {
	t.Helper()
	m := fronttest.NewMemory(fronttest.Geometry(size), 2)
	t.Cleanup(m.Close)
	return m
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s: %v", name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.TempDir() // fio leaves its state where it stands
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// notReads is what arrived, without reads: udev probes new devices.
func notReads(m *fronttest.Memory) []fronttest.Seen {
	var found []fronttest.Seen
	for _, s := range m.Seen() {
		if s.Op != block.Read {
			found = append(found, s)
		}
	}
	return found
}

// stop waits for mount namespaces that others made while a test had the device
// mounted: their copy of the mount holds it too.
func stop(t *testing.T, f *fuse.Fuse) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		err := f.Stop(context.Background())
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "in the mount namespace of") {
			t.Fatal(err)
		}
		select {
		case <-limit:
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestStartStop(t *testing.T) {
	m := memory(t, 16<<20)
	f, dev := start(t, m, m.Geometry())
	if got := strings.TrimSpace(tool(t, "blockdev", "--getsize64", dev)); got != "16777216" {
		t.Errorf("the device has %s bytes", got)
	}
	if got := strings.TrimSpace(tool(t, "losetup", "--noheadings", "--output", "DIO", dev)); got != "1" {
		t.Errorf("direct I/O is %s", got)
	}
	stop(t, f)
	if _, err := os.Stat("/sys/block/" + filepath.Base(dev) + "/loop"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still attached: %v", dev, err)
	}
}

func TestStartAgain(t *testing.T) {
	m := memory(t, 4<<20)
	f, _ := start(t, m, m.Geometry())
	for range 5 {
		stop(t, f)
		if _, err := f.Start(context.Background(), m, m.Geometry()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Start(context.Background(), m, m.Geometry()); err == nil {
		t.Fatal("started twice")
	}
}

func TestExt4(t *testing.T) {
	m := memory(t, 128<<20)
	f, dev := start(t, m, m.Geometry())
	tool(t, "mkfs.ext4", "-q", dev)
	point := t.TempDir()
	tool(t, "mount", dev, point)
	mounted := true
	defer func() {
		if mounted {
			tool(t, "umount", point)
		}
	}()
	tool(t, "dd", "if=/dev/urandom", "of="+point+"/a", "bs=1M", "count=40", "conv=fsync", "status=none")
	tool(t, "cp", point+"/a", point+"/b")
	tool(t, "fstrim", point)
	var busy *holder.BusyError
	err := f.Stop(context.Background())
	if !errors.As(err, &busy) || !strings.Contains(err.Error(), "mount on "+point) {
		t.Fatalf("Stop of a mounted device: %v", err)
	}
	tool(t, "umount", point)
	tool(t, "e2fsck", "-fn", dev)
	tool(t, "mount", dev, point)
	tool(t, "cmp", point+"/a", point+"/b")
	tool(t, "umount", point)
	mounted = false
	stop(t, f)
}

func TestFio(t *testing.T) {
	m := memory(t, 64<<20)
	_, dev := start(t, m, m.Geometry())
	for _, engine := range []string{"libaio", "psync"} {
		tool(t, "fio", "--name=v", "--filename="+dev, "--ioengine="+engine, "--direct=1", "--rw=randwrite", "--bsrange=512-1M",
			"--size=64M", "--iodepth=32", "--verify=crc32c", "--verify_fatal=1", "--fsync=64", "--verify_backlog=256")
	}
	tool(t, "fio", "--name=v", "--filename="+dev, "--ioengine=libaio", "--direct=1", "--rw=randrw", "--bs=4k",
		"--size=32M", "--iodepth=32", "--verify=crc32c", "--verify_fatal=1")
}

func TestHolesAndZeroes(t *testing.T) {
	m := memory(t, 16<<20)
	_, dev := start(t, m, m.Geometry())
	for i := range m.Bytes() {
		m.Bytes()[i] = 0xff
	}
	m.Forget()
	tool(t, "blkdiscard", "-o", "1M", "-l", "1M", dev)
	tool(t, "blkdiscard", "-z", "-o", "4M", "-l", "2M", dev)
	tool(t, "fallocate", "-p", "-o", "8M", "-l", "1M", dev)
	want := map[fronttest.Seen]bool{
		{Op: block.WriteZeroes, Offset: 1 << 20, Length: 1 << 20}:                       true,
		{Op: block.WriteZeroes, Flags: block.NoUnmap, Offset: 4 << 20, Length: 2 << 20}: true,
		{Op: block.WriteZeroes, Offset: 8 << 20, Length: 1 << 20}:                       true,
	}
	for _, s := range m.Seen() {
		delete(want, s)
		if s.Op == block.Discard {
			t.Errorf("a discard arrived, though the loop device may have meant zeroes: %v", s)
		}
	}
	if len(want) > 0 {
		t.Errorf("did not arrive: %v; came: %v", want, m.Seen())
	}
	for _, r := range []struct{ from, to int }{{1 << 20, 2 << 20}, {4 << 20, 6 << 20}, {8 << 20, 9 << 20}} {
		for _, at := range []int{r.from - 1, r.from, r.to - 1, r.to} {
			if inside := at >= r.from && at < r.to; inside != (m.Bytes()[at] == 0) {
				t.Errorf("byte %d is %#x", at, m.Bytes()[at])
			}
		}
	}
}

func TestNoDiscard(t *testing.T) {
	m := memory(t, 4<<20)
	g := m.Geometry()
	g.Discard = false
	_, dev := start(t, m, g)
	m.Forget()
	// A discard is a hint: the block layer calls the first refusal a success.
	tool(t, "blkdiscard", dev)
	if out, err := exec.Command("blkdiscard", dev).CombinedOutput(); err == nil {
		t.Errorf("a second discard still works on a volume without: %s", out)
	}
	if seen := notReads(m); len(seen) != 0 {
		t.Errorf("discards arrived: %v", seen)
	}
	for i := range m.Bytes() {
		m.Bytes()[i] = 0xff
	}
	tool(t, "fallocate", "-z", "-l", "1M", dev)
	tool(t, "blkdiscard", "-z", "-o", "1M", "-l", "1M", dev)
	if data := m.Bytes(); bytes.Count(data[:2<<20], []byte{0}) != 2<<20 || data[2<<20] != 0xff {
		t.Error("zeroes did not become zeroes")
	}
}

// openDirect opens a device the way a database does.
func openDirect(t *testing.T, dev string) *os.File {
	t.Helper()
	f, err := os.OpenFile(dev, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFsyncIsFlush(t *testing.T) {
	m := memory(t, 4<<20)
	_, dev := start(t, m, m.Geometry())
	f := openDirect(t, dev)
	defer f.Close()
	m.Forget()
	if _, err := f.WriteAt(block.Aligned(4096), 8192); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	want := []fronttest.Seen{{Op: block.Write, Offset: 8192, Length: 4096}, {Op: block.Flush}}
	if got := notReads(m); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("a write and an fsync arrive as %v, want %v", got, want)
	}
}

func TestAbortInFlight(t *testing.T) {
	m := memory(t, 4<<20)
	f, dev := start(t, m, m.Geometry())
	file := openDirect(t, dev)
	defer file.Close()
	m.Hold(block.Write)
	outcome := make(chan error, 4)
	for i := range 4 {
		go func() {
			_, err := file.WriteAt(block.Aligned(4096), int64(i)*4096)
			outcome <- err
		}()
	}
	m.AwaitHeld(4)
	begin := time.Now()
	if err := f.Abort(context.Background()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("Abort took %v", took)
	}
	for range 4 {
		if err := <-outcome; !errors.Is(err, unix.EIO) {
			t.Errorf("a write in flight ended with %v, want EIO", err)
		}
	}
	if _, err := file.ReadAt(block.Aligned(4096), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("a read afterwards: %v, want EIO", err)
	}
	m.Release()
	m.AwaitIdle()
}

func TestAbortUnderMount(t *testing.T) {
	m := memory(t, 32<<20)
	f, dev := start(t, m, m.Geometry())
	tool(t, "mkfs.ext4", "-q", dev)
	point := t.TempDir()
	tool(t, "mount", dev, point)
	if err := os.WriteFile(point+"/dirty", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Abort(context.Background()); err != nil {
		t.Fatal(err)
	}
	tool(t, "umount", point)
}
