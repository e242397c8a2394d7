package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"hapair/mirror/meta"
)

// medium is where the copies lie.
type medium struct {
	name string
	what string // for the report
	base string
}

var fileSystems = map[int64]string{unix.TMPFS_MAGIC: "tmpfs", unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}

func newMedium(name string, o *options) (medium, error) {
	m := medium{name: name}
	switch name {
	case "tmpfs":
		m.base = "/dev/shm"
	case "disk":
		m.base = o.disk
	default:
		return m, fmt.Errorf("--media %q: want tmpfs or disk", name)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(m.base, &fs); err != nil {
		return m, fmt.Errorf("%s: %w", m.base, err)
	}
	kind, known := fileSystems[fs.Type]
	if !known {
		kind = fmt.Sprintf("file system %#x", fs.Type)
	}
	switch {
	case name == "tmpfs" && kind != "tmpfs":
		return m, fmt.Errorf("%s is %s, not tmpfs", m.base, kind)
	case name == "disk" && kind == "tmpfs":
		return m, fmt.Errorf("%s is in memory: name a directory on a real file system with --disk", m.base)
	}
	m.what = kind
	if need, have := copiesMade*o.mib<<20, int64(fs.Bavail)*fs.Bsize; need > have {
		return m, fmt.Errorf("%s: %d volumes of %d MiB need %d bytes, %d are free: choose a smaller --size", m.base, copiesMade, o.mib, need, have)
	}
	return m, nil
}

const copiesMade = 5 // one, two for the quorum driver, two for hapair

// measured is what came out on one medium: samples by workload and system, in
// the order of the repetitions.
type measured struct {
	medium  medium
	systems []string
	samples map[string]map[string][]sample
}

// compare measures all systems on one medium.
func compare(ctx context.Context, o *options, m medium, loads []workload) (got *measured, err error) {
	dir, err := os.MkdirTemp(m.base, "hapair-bench-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if o.keep {
			fmt.Fprintln(os.Stderr, "kept:", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	var near, far box
	if !o.mixed {
		if near, far, err = boxes(); err != nil {
			return nil, err
		}
	}
	systems, err := makeSystems(o, near, far, dir)
	if err != nil {
		return nil, err
	}
	stopped := false
	stop := func() error {
		var errs []error
		for _, s := range systems {
			if err := s.stop(); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s.name(), err))
			}
		}
		stopped = true
		return errors.Join(errs...)
	}
	defer func() {
		if !stopped {
			err = errors.Join(err, stop())
		}
	}()
	got = &measured{medium: m, samples: map[string]map[string][]sample{}}
	uris := make([]string, len(systems))
	for i, s := range systems {
		got.systems = append(got.systems, s.name())
		if uris[i], err = s.start(ctx); err != nil {
			return nil, fmt.Errorf("%s could not be run: %w", s.name(), err)
		}
	}
	if err := got.measure(ctx, o, near, dir, systems, uris, loads); err != nil {
		return nil, err
	}
	if err := stop(); err != nil {
		return nil, err
	}
	return got, alike(systems)
}

func makeSystems(o *options, near, far box, dir string) ([]system, error) {
	one := &qemu{what: "one copy", near: near, dir: filepath.Join(dir, "one")}
	two := &qemu{what: "quorum", near: near, far: far, dir: filepath.Join(dir, "two"), mirror: true}
	us := &pair{dir: filepath.Join(dir, "us"), near: near, far: far, network: o.network, agent: o.agent, ctl: o.ctl}
	for _, s := range []struct {
		dir    string
		images *[]string
		n      int
	}{{one.dir, &one.images, 1}, {two.dir, &two.images, 2}, {us.dir, &us.images, 2}} {
		if err := os.Mkdir(s.dir, 0o700); err != nil {
			return nil, err
		}
		for i := range s.n {
			*s.images = append(*s.images, filepath.Join(s.dir, fmt.Sprintf("image%d", i)))
			if err := fillImage((*s.images)[i], o.mib<<20); err != nil {
				return nil, err
			}
		}
	}
	for _, node := range []string{"alpha", "beta"} {
		file := filepath.Join(us.home(node), "metadata")
		if err := os.MkdirAll(us.home(node), 0o700); err != nil {
			return nil, err
		}
		if err := fillImage(file, meta.Needed(o.mib<<20)); err != nil {
			return nil, err
		}
	}
	return []system{one, two, us}, nil
}

// fillImage writes a file whole, so that no system pays for its allocation
// while it is measured. All images are alike.
func fillImage(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range block {
		block[i] = byte(r.Uint32())
	}
	for left := size; left > 0 && err == nil; left -= int64(len(block)) {
		_, err = f.Write(block[:min(left, int64(len(block)))])
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// measure takes all samples. Within a repetition the systems take turns, so
// that the other load of the machine meets all of them.
func (g *measured) measure(ctx context.Context, o *options, client box, dir string, systems []system, uris []string, loads []workload) error {
	length := time.Duration(o.seconds) * time.Second
	for _, w := range loads {
		g.samples[w.title] = map[string][]sample{}
		for rep := range o.reps {
			for turn := range systems {
				i := (turn + rep) % len(systems) // nobody always comes first
				s, err := once(ctx, client, dir, systems[i], uris[i], w, length)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", systems[i].name(), w.title, err)
				}
				g.samples[w.title][systems[i].name()] = append(g.samples[w.title][systems[i].name()], s)
				fmt.Fprintf(os.Stderr, "%-6s %-18s %2d/%d %-9s %8.0f IOPS %7.1f MB/s %7.0f us %7.0f us p99 %6.2f CPU s/10k\n",
					g.medium.name, w.title, rep+1, o.reps, systems[i].name(), s.iops, s.mbps, s.mean, s.p99, s.cpu10k)
			}
		}
	}
	return nil
}

// once measures one system.
func once(ctx context.Context, client box, dir string, s system, uri string, w workload, length time.Duration) (sample, error) {
	if err := s.healthy(ctx); err != nil {
		return sample{}, fmt.Errorf("before: %w", err)
	}
	before, err := cpuTime(s.servers())
	if err != nil {
		return sample{}, err
	}
	got, err := runFio(ctx, client, dir, uri, w, length)
	if err != nil {
		return got, err
	}
	after, err := cpuTime(s.servers())
	if err != nil {
		return got, err
	}
	got.cpu10k = (after - before).Seconds() / got.ops * 1e4
	if err := s.healthy(ctx); err != nil {
		return got, fmt.Errorf("after: %w", err)
	}
	return got, nil
}

// alike compares the copies: a mirror that is fast because it does not mirror
// is not to be listed.
func alike(systems []system) error {
	for _, s := range systems {
		images := s.copies()
		for _, other := range images[1:] {
			if err := sameFile(images[0], other); err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
		}
	}
	return nil
}

func sameFile(a, b string) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close() //nolint:errcheck // only read from
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close() //nolint:errcheck // only read from
	var blocks [2][1 << 20]byte
	for off := int64(0); ; {
		na, erra := io.ReadFull(fa, blocks[0][:])
		nb, errb := io.ReadFull(fb, blocks[1][:])
		if na != nb || !bytes.Equal(blocks[0][:na], blocks[1][:nb]) {
			return fmt.Errorf("the copies %s and %s differ in the MiB from byte %d on", a, b, off)
		}
		if erra != nil || errb != nil {
			if errors.Is(erra, io.EOF) || errors.Is(erra, io.ErrUnexpectedEOF) {
				return nil
			}
			return errors.Join(erra, errb)
		}
		off += int64(na)
	}
}
