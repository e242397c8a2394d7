package export_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hapair/mirror/block"
	"hapair/mirror/front/export"
	"hapair/mirror/front/fronttest"
	"hapair/mirror/front/holder"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start offers a handler for one test.
func start(t *testing.T, h block.Handler, g block.Geometry) (e *export.Export, uri string) {
	t.Helper()
	e = export.New(export.Config{Socket: filepath.Join(t.TempDir(), "s"), Name: "r0/0"})
	uri, err := e.Start(context.Background(), h, g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(e.Abort(context.Background()), e.Stop(context.Background())); err != nil {
			t.Error(err)
		}
	})
	return e, uri
}

// memory is a RAM volume whose requests complete on two goroutines.
func memory(t *testing.T, size int64) *fronttest.Memory {
	t.Helper()
	m := fronttest.NewMemory(fronttest.Geometry(size), 2)
	t.Cleanup(m.Close)
	return m
}

// tool runs a program, which must succeed.
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

func TestNbdinfo(t *testing.T) {
	m := memory(t, 64<<20)
	_, uri := start(t, m, m.Geometry())
	text := tool(t, "nbdinfo", uri)
	for _, want := range []string{
		"export-size: 67108864", "can_multi_conn: true", "can_flush: true", "can_fua: true", "can_trim: true",
		"can_zero: true", "can_fast_zero: false", "can_df: true", "block_size_minimum: 512",
		"block_size_preferred: 4096", "block_size_maximum: 33554432", "using structured",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("nbdinfo does not say %q:\n%s", want, text)
		}
	}
	if list := tool(t, "nbdinfo", "--list", uri); !strings.Contains(list, `export="r0/0"`) {
		t.Errorf("nbdinfo --list does not list r0/0:\n%s", list)
	}
}

func TestNbdcopy(t *testing.T) {
	m := memory(t, 64<<20)
	_, uri := start(t, m, m.Geometry())
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	tool(t, "dd", "if=/dev/urandom", "of="+from, "bs=1M", "count=64", "status=none")
	tool(t, "nbdcopy", "--request-size=33554432", "--flush", from, uri)
	tool(t, "nbdcopy", "--request-size=33554432", uri, to)
	tool(t, "cmp", from, to)
	tool(t, "nbdcopy", from, uri)
	tool(t, "nbdcopy", uri, to)
	tool(t, "cmp", from, to)
}

func TestQemuIO(t *testing.T) {
	m := memory(t, 64<<20)
	_, uri := start(t, m, m.Geometry())
	out := tool(t, "qemu-io", "-f", "raw", uri,
		"-c", "write -P 0xaa 1M 2M", "-c", "write -f -P 0xbb 512 1024", "-c", "aio_write -P 1 8M 1M", "-c", "aio_write -P 2 9M 1M",
		"-c", "aio_flush", "-c", "flush", "-c", "read -P 0xaa 1M 2M", "-c", "read -P 0xbb 512 1024", "-c", "read -P 2 9M 1M",
		"-c", "write -z 1M 1M", "-c", "read -P 0 1M 1M", "-c", "write -z -u 2M 512k", "-c", "read -P 0 2M 512k", "-c", "discard 2M 1M",
		"-c", "write -P 0xcc 32M 32M", "-c", "read -P 0xcc 32M 32M")
	if strings.Contains(out, "rror") || strings.Contains(out, "ailed") {
		t.Fatalf("qemu-io:\n%s", out)
	}
	seen := map[block.Op]block.Flags{}
	for _, s := range m.Seen() {
		seen[s.Op] |= s.Flags
	}
	if seen[block.Write]&block.FUA == 0 {
		t.Error("write -f did not arrive with FUA")
	}
	if seen[block.WriteZeroes]&block.NoUnmap == 0 {
		t.Error("write -z without -u did not arrive with NoUnmap")
	}
	for _, op := range []block.Op{block.Flush, block.Discard} {
		if _, ok := seen[op]; !ok {
			t.Errorf("no %s arrived", op)
		}
	}
}

func TestQemuImg(t *testing.T) {
	m := memory(t, 64<<20)
	_, uri := start(t, m, m.Geometry())
	from := filepath.Join(t.TempDir(), "from")
	tool(t, "dd", "if=/dev/urandom", "of="+from, "bs=1M", "count=64", "status=none")
	tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", from, uri)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", from, uri)
}

func TestFioVerify(t *testing.T) {
	m := memory(t, 64<<20)
	_, uri := start(t, m, m.Geometry())
	tool(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+uri, "--rw=randwrite", "--bsrange=512-1M", "--size=64M",
		"--iodepth=32", "--verify=crc32c", "--verify_fatal=1", "--fsync=64", "--trim_percentage=0", "--verify_backlog=256")
	tool(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+uri, "--rw=randrw", "--bs=4k", "--size=32M",
		"--iodepth=32", "--verify=crc32c", "--verify_fatal=1")
}

func TestStopNamesTheClient(t *testing.T) {
	m := memory(t, 1<<20)
	e, uri := start(t, m, m.Geometry())
	if _, err := exec.LookPath("nbdsh"); err != nil {
		t.Skipf("needs nbdsh: %v", err)
	}
	cmd := exec.Command("nbdsh", "-u", uri, "-c", "import sys; print('up', flush=True); sys.stdin.read()")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	var busy *holder.BusyError
	if err := e.Stop(context.Background()); !errors.As(err, &busy) || len(busy.Holders) != 1 || busy.Holders[0].PID != cmd.Process.Pid {
		t.Fatalf("Stop with a client: %v, want a BusyError that names pid %d", err, cmd.Process.Pid)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
}

// TestThroughput prints figures when asked to: HAPAIR_BENCH=<seconds a job>.
func TestThroughput(t *testing.T) {
	if os.Getenv("HAPAIR_BENCH") == "" {
		t.Skip("a measurement; set HAPAIR_BENCH=<seconds a job>")
	}
	for _, workers := range []int{0, 2} {
		m := fronttest.NewMemory(fronttest.Geometry(256<<20), workers)
		m.Quiet = true
		t.Cleanup(m.Close)
		_, uri := start(t, m, m.Geometry())
		for _, job := range [][]string{
			{"randwrite", "4k", "1"}, {"randwrite", "4k", "32"}, {"randread", "4k", "1"}, {"randread", "4k", "32"}, {"write", "1M", "8"}, {"read", "1M", "8"},
		} {
			out := tool(t, "fio", "--name=b", "--ioengine=nbd", "--uri="+uri, "--rw="+job[0], "--bs="+job[1], "--iodepth="+job[2],
				"--size=256M", "--time_based", "--runtime="+os.Getenv("HAPAIR_BENCH"), "--output-format=terse", "--terse-version=3")
			f := strings.Split(strings.TrimSpace(out), ";")
			i := 5
			if strings.HasSuffix(job[0], "write") {
				i = 46
			}
			t.Logf("workers %d  %-9s %-3s depth %-3s %8s KiB/s %8s IOPS", workers, job[0], job[1], job[2], f[i+1], f[i+2])
		}
	}
}
