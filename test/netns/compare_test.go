package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"hapair/agent/apiv1"
)

const (
	compareBytes = mib
	blockBytes   = 4096
	recordsFile  = "/srv/pg/records"
)

// verify reads what the Primary's disk holds, past every cache, and looks for
// what was answered.
func (p *pair) verify(primary string) {
	p.t.Helper()
	if p.fs {
		p.verifyRecords(primary)
		return
	}
	if len(p.slots) > 0 {
		p.verifySlots(primary)
	}
}

func (p *pair) verifyRecords(primary string) {
	p.t.Helper()
	text, err := p.Run(p.ctx, primary, "sh", "-c", "dd if="+recordsFile+" iflag=direct bs=1M status=none")
	p.must(err)
	present := map[uint64]bool{}
	for line := range strings.Lines(text) {
		whole := strings.HasSuffix(line, "\n") // the last one may be on its way
		n, err := strconv.ParseUint(strings.TrimSuffix(line, "\n"), 10, 64)
		if err != nil {
			p.t.Fatalf("the records on %s are damaged: %q", primary, line)
		}
		if whole {
			present[n] = true
		}
	}
	var missing []uint64
	for n := range p.acked {
		if !present[n] {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		p.t.Errorf("%d of %d answered records are not on the disk of %s: %v", len(missing), len(p.acked), primary, missing)
	}
	p.say("%d answered records, all looked for on the disk of %s, %d missing", len(p.acked), primary, len(missing))
}

// identical waits until what is on its way has arrived, and compares the files
// behind both disks byte for byte, as far as the volumes go.
func (p *pair) identical(primary string) {
	p.t.Helper()
	r := p.resource(primary, "serves", func(r *apiv1.Resource) bool { return serving(r) && len(r.Volumes) > 0 })
	for i := range r.Volumes {
		size := r.Volumes[i].SizeBytes
		p.eventually("both copies are the same", func() error { // the file system writes back in its own time
			if err := p.flush(primary, &r.Volumes[i]); err != nil {
				return err
			}
			return sameFiles(p.VolumeImage(primary, i), p.VolumeImage(p.other(primary), i), size)
		})
		p.say("both copies of volume %d are the same, %d MiB", i, size/mib)
	}
}

func (p *pair) flush(primary string, v *apiv1.Volume) error {
	argv := []string{"sync", v.Device}
	switch {
	case p.fs:
		argv = []string{"sync", "-f", "/srv/pg"}
	case strings.HasPrefix(v.Device, "nbd"):
		argv = []string{"qemu-io", "-f", "raw", "-c", "flush", v.Device}
	}
	_, err := p.Run(p.ctx, primary, argv...)
	return err
}

// sameFiles compares the first bytes of two files and counts the blocks that
// differ.
func sameFiles(a, b string, size int64) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close()
	return sameReaders(io.LimitReader(fa, size), io.LimitReader(fb, size), size)
}

func sameReaders(a, b io.Reader, size int64) error {
	pa, pb := make([]byte, compareBytes), make([]byte, compareBytes)
	var at int64
	var differ []int64
	for at < size {
		n := min(compareBytes, size-at)
		_, ea := io.ReadFull(a, pa[:n])
		_, eb := io.ReadFull(b, pb[:n])
		if err := errors.Join(ea, eb); err != nil {
			return fmt.Errorf("compare at %d: %w", at, err)
		}
		for i := int64(0); i < n; i += blockBytes {
			end := min(i+blockBytes, n)
			if !bytes.Equal(pa[i:end], pb[i:end]) {
				differ = append(differ, (at+i)/blockBytes)
			}
		}
		at += n
	}
	if len(differ) > 0 {
		return fmt.Errorf("%d blocks of %d bytes differ: %v", len(differ), blockBytes, differ[:min(len(differ), 20)])
	}
	return nil
}

// randomImage makes a file of random bytes that a node can read too.
func (p *pair) randomImage(node string, size int64) string {
	p.t.Helper()
	name := p.t.TempDir() + "/image"
	p.run(node, "dd", "if=/dev/urandom", "of="+name, "bs=1M", fmt.Sprintf("count=%d", size), "iflag=count_bytes", "status=none")
	return name
}

// sameBut compares two files, but for some ranges.
func (p *pair) sameBut(a, b string, except [][2]int64) {
	p.t.Helper()
	x, err := os.ReadFile(a)
	p.must(err)
	y, err := os.ReadFile(b)
	p.must(err)
	for _, r := range except {
		copy(x[r[0]:r[1]], y[r[0]:r[1]])
	}
	if !bytes.Equal(x, y) {
		p.t.Errorf("what was copied in and what came back differ (%d and %d bytes): %v", len(x), len(y),
			sameReaders(bytes.NewReader(x), bytes.NewReader(y), int64(min(len(x), len(y)))))
	}
}
