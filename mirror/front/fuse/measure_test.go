package fuse_test

import (
	"os"
	"strings"
	"testing"

	"hapair/mirror/front/fronttest"
)

// TestThroughput prints figures when asked to: HAPAIR_BENCH=<seconds a job>.
func TestThroughput(t *testing.T) {
	if os.Getenv("HAPAIR_BENCH") == "" {
		t.Skip("a measurement; set HAPAIR_BENCH=<seconds a job>")
	}
	for _, workers := range []int{0, 2} {
		m := fronttest.NewMemory(fronttest.Geometry(256<<20), workers)
		m.Quiet = true
		t.Cleanup(m.Close)
		_, dev := start(t, m, m.Geometry())
		for _, job := range [][]string{
			{"randwrite", "4k", "1"}, {"randwrite", "4k", "32"}, {"randread", "4k", "1"}, {"randread", "4k", "32"}, {"write", "1M", "8"}, {"read", "1M", "8"},
		} {
			out := tool(t, "fio", "--name=b", "--ioengine=libaio", "--direct=1", "--filename="+dev, "--rw="+job[0], "--bs="+job[1], "--iodepth="+job[2],
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
