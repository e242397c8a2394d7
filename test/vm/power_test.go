package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hapair/test/script"
)

// A power cut takes what a machine has written and not flushed, of a disk and of
// a file system, and nothing else. If the disks do nothing when they are told to
// flush it takes that as well: so it is the flush, on its way through the kernel's
// driver and QEMU, that saves it.
func TestPowerCut(t *testing.T) {
	t.Run("flushes are honoured", func(t *testing.T) {
		b := newBox(t, false)
		judge := b.clock()
		b.write()
		judge()
		if flushed, other := b.cut(); !flushed || other {
			t.Errorf("after the power cut: what was flushed is there: %v; what was not: %v", flushed, other)
		}
		if err := b.powerOn(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.run("cmp -n 1048576 /var/lib/hapair/flushed /bin/hactl")
	})
	t.Run("flushes are lied about", func(t *testing.T) {
		b := newBox(t, true)
		b.write()
		if flushed, other := b.cut(); flushed || other {
			t.Errorf("after the power cut: what was flushed is there: %v; what was not: %v", flushed, other)
		}
	})
}

// half is what a box writes and flushes, and what it writes and does not, in bytes.
const half = 1 << 20

// box is one machine that is on; its disks write nothing before they are told to flush.
type box struct {
	t *testing.T
	*machine
	data []byte // what it has, and writes
}

func newBox(t *testing.T, liars bool) *box {
	o := options(t)
	o.Liars = liars
	data, err := os.ReadFile(filepath.Join(o.Bin, "hactl"))
	if err != nil {
		t.Fatal(err)
	}
	return &box{t: t, machine: alone(t, o, script.Alpha), data: data}
}

// alone boots one machine, which is taken apart with the test.
func alone(t *testing.T, o Options, name string) *machine {
	t.Helper()
	o.Dir = labDir(t)
	l, err := build(o, name)
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		err = l.machines[name].powerOn(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return l.machines[name]
}

// run runs a script in the machine.
func (b *box) run(script string) string {
	b.t.Helper()
	out, err := b.machine.run(b.t.Context(), "/bin/sh", "-ec", script)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// clock looks at the machine's clock; what it returns does so again, and judges how
// fast it is: leases are made of clocks that differ by less than 2 %.
func (b *box) clock() (judge func()) {
	b.t.Helper()
	look := func() (before, after time.Time, up time.Duration) {
		before = time.Now()
		var seconds float64
		if _, err := fmt.Sscan(b.run("cat /proc/uptime"), &seconds); err != nil {
			b.t.Fatal(err)
		}
		return before, time.Now(), time.Duration(seconds * float64(time.Second))
	}
	before, after, up := look()
	return func() {
		b.t.Helper()
		before2, after2, up2 := look()
		least, most := before2.Sub(after), after2.Sub(before)
		if d := up2 - up; d < least*98/100 || d > most*102/100 {
			b.t.Errorf("its clock says that %s have passed, ours %s to %s", d, least, most)
		}
	}
}

// write fills a disk, its first half flushed, and a file that is flushed. Both
// halves are read as they were written.
func (b *box) write() {
	b.t.Helper()
	if got := b.run("cat /sys/block/vdb/queue/write_cache"); got != "write back" {
		b.t.Fatalf("the machine takes the cache of its disk for %q", got)
	}
	b.run("dd if=/bin/hactl of=/dev/vdb bs=4k count=256 oflag=direct conv=fsync; dd if=/bin/hactl of=/var/lib/hapair/flushed bs=64k count=16 conv=fsync")
	b.run("dd if=/bin/hactl of=/dev/vdb bs=4k count=256 skip=256 seek=256 oflag=direct; dd if=/dev/vdb bs=4k count=512 iflag=direct | cmp -n 2097152 - /bin/hactl")
}

// cut cuts the power, and looks what is on the disk.
func (b *box) cut() (flushed, other bool) {
	b.t.Helper()
	if err := b.powerOff(); err != nil {
		b.t.Fatal(err)
	}
	got, err := os.ReadFile(b.disks[1].file)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Logf("%d KiB are lost", b.lost>>10)
	nothing := make([]byte, half)
	return !bytes.Equal(got[:half], nothing) && bytes.Equal(got[:half], b.data[:half]), !bytes.Equal(got[half:2*half], nothing)
}
