package netns

import (
	"fmt"
	"path/filepath"
	"testing"
)

const (
	fioFile = "/srv/pg/fio"
	fioSize = "64M"
)

// fio writes blocks with sums in them until its trigger cuts the power. It has
// written down which it was answered: on the survivor each of them has its sum.
func TestAppFio(t *testing.T) {
	needs(t, tool{"fio", "fio"}, tool{"mkfs.xfs", "xfsprogs"}, tool{"e2fsck", "e2fsprogs"})
	for _, filesystem := range appFilesystems {
		t.Run(filesystem, func(t *testing.T) { fio(t, filesystem) })
	}
}

func fio(t *testing.T, filesystem string) {
	p := newApps(t, filesystem)
	kills := number(t, "HAPAIR_KILLS", killsShort)
	for round := range kills {
		primary := p.primary()
		dir := t.TempDir() // not the node's: it outlives the power
		// Written once before, so that no metadata of the file are on their way.
		p.run(primary, "dd", "if=/dev/zero", "of="+fioFile, "bs=1M", "count=64", "conv=fsync", "status=none")
		cut := filepath.Join(dir, "cut")
		p.start(primary, fioJob(dir, round, "--do_verify=0", "--rate_iops=3000", "--trigger-timeout=2", "--trigger=touch "+cut)...)
		p.eventually("fio pulls its trigger", func() error {
			if !exists(cut) {
				return fmt.Errorf("no %s", cut)
			}
			return nil
		})
		p.kill(func(survivor string) {
			verify := fioJob(dir, round, "--verify_only", "--verify_state_load=1")
			p.run(survivor, verify...)
			p.run(survivor, "sh", "-c", "yes wrong | dd of="+fioFile+" bs=1M count=64 iflag=fullblock conv=notrunc,fsync status=none")
			if out, err := p.Run(p.ctx, survivor, verify...); err == nil {
				t.Errorf("fio finds its sums in what is not its own: %s", out)
			}
		})
	}
	p.say("%s on %s: %d kills, every sum was right", t.Name(), filesystem, kills)
	p.sound(filesystem)
}

// fioJob is the command line of a round, the same for writing and for looking.
func fioJob(dir string, round int, more ...string) []string {
	return append([]string{"fio", "--name=sums", "--filename=" + fioFile, "--size=" + fioSize, "--bs=4k", "--rw=randwrite",
		fmt.Sprintf("--randseed=%d", round+1), "--ioengine=libaio", "--iodepth=16", "--direct=1", "--verify=crc32c", "--verify_fatal=1",
		"--aux-path=" + dir}, more...)
}
