package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hapair/failover/service"
	"hapair/kernel/mounts"
)

// CheckImplemented refuses what the file may describe but this version does not
// do. Whoever opens an agent calls it; the error joins [NotImplementedError]s.
func (c *Config) CheckImplemented() error {
	var errs []error
	for i := range c.Resources {
		r := &c.Resources[i]
		if r.Frontend == FrontendUblk || r.Frontend == FrontendNBD {
			errs = append(errs, &NotImplementedError{fmt.Sprintf("frontend: %s of resource %s", r.Frontend, r.Name), "use frontend: auto, fuse or export"})
		}
		if r.ResyncRate != 0 {
			errs = append(errs, &NotImplementedError{"resync_rate of resource " + r.Name, "leave it out: a resync takes what the disks and the link give"})
		}
	}
	return errors.Join(append(errs, c.devicesNotBuilt()...)...)
}

// CheckSystem asks this machine whether the disks of node can be used: each
// exists, none carries a mounted file system, swap or another device, and no
// two names are one disk. It opens no device. And whether the resource agents
// and the fence agents for the other node are there and want the parameters that
// are given. The error is an [Errors].
func (c *Config) CheckSystem(ctx context.Context, node string) error {
	return c.checkSystem(ctx, node, machine{proc: "/proc", sys: "/sys"})
}

// machine is where the kernel's answers are read.
type machine struct{ proc, sys string }

// identity tells whether two names are one disk.
type identity struct {
	block    bool
	dev, ino uint64 // block: dev is the device number
}

func identify(p string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return identity{}, &fs.PathError{Op: "stat", Path: p, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return identity{block: true, dev: st.Rdev}, nil
	case unix.S_IFREG:
		return identity{dev: st.Dev, ino: st.Ino}, nil
	}
	return identity{}, fmt.Errorf("%s is neither a block device nor a file", p)
}

func (c *Config) checkSystem(ctx context.Context, node string, m machine) error {
	k := &checker{cfg: c, src: c.src}
	if k.src == nil {
		k.src = newSource("configuration", nil)
	}
	used := map[identity]string{}
	check := func(at, p string) {
		if p == "" || p == Internal {
			return
		}
		id, err := identify(p)
		if err != nil {
			k.fail(at, "", "%v", err)
			return
		}
		if first, twice := used[id]; twice {
			k.fail(at, "each volume needs a disk of its own", "%s is the same disk as the one on %s", p, k.place(first))
			return
		}
		used[id] = at
		uses, err := m.usesOf(p, id)
		if err != nil {
			k.fail(at, "", "cannot tell whether %s is in use: %v", p, err)
		}
		for _, use := range uses {
			k.fail(at, "free it first, or name another disk: everything on it would be overwritten", "%s %s", p, use)
		}
	}
	for _, r := range c.Resources {
		for i, v := range r.Volumes {
			at := fmt.Sprintf("resources.%s.volumes[%d]", r.Name, i)
			check(perNodePlace(at+".disk", v.Disk, node), v.Disk.For(node))
			check(perNodePlace(at+".metadata", v.Metadata, node), v.Metadata.For(node))
		}
	}
	k.agents(ctx)
	k.fenceDevices(ctx, node)
	if c.Node(node) != nil {
		k.watchdogDevice()
	}
	if len(k.errs) > 0 {
		return inOrder(k.errs)
	}
	return nil
}

// agents asks the resource agents of this machine what they are.
func (c *checker) agents(ctx context.Context) {
	for _, r := range c.cfg.Resources {
		for i := range r.Services {
			if r.Services[i].OCF == nil {
				continue
			}
			if err := service.CheckOCF(ctx, *r.Services[i].ocf()); err != nil {
				c.fail(fmt.Sprintf("resources.%s.services[%d].ocf", r.Name, i), "", "%v", err)
			}
		}
	}
}

// usesOf says what else uses a disk, in words.
func (m machine) usesOf(p string, id identity) ([]string, error) {
	if !id.block {
		return m.loopsOver(p)
	}
	mounts, err := m.mountsOf(m.withPartitions(id.dev))
	if err != nil {
		return nil, err
	}
	swaps, err := m.swapsOn(id)
	if err != nil {
		return nil, err
	}
	return append(append(mounts, swaps...), m.holders(id.dev)...), nil
}

func devName(dev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}

// withPartitions returns the device and its partitions as major:minor.
func (m machine) withPartitions(dev uint64) map[string]string {
	out := map[string]string{devName(dev): ""}
	dir := filepath.Join(m.sys, "dev/block", devName(dev))
	parts, err := filepath.Glob(filepath.Join(dir, "*", "partition"))
	if err != nil {
		return out // only a bad pattern fails, and this one is constant
	}
	for _, p := range parts {
		if text, err := os.ReadFile(filepath.Join(filepath.Dir(p), "dev")); err == nil {
			out[strings.TrimSpace(string(text))] = filepath.Base(filepath.Dir(p))
		}
	}
	return out
}

// mountsOf reads mountinfo: by the device number of the file system, and by
// its source for those that have a number of their own (btrfs).
func (m machine) mountsOf(devs map[string]string) ([]string, error) {
	all, err := mounts.Read(filepath.Join(m.proc, "self/mountinfo"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, x := range all {
		part, hit := devs[devName(x.Dev)]
		if !hit && strings.HasPrefix(x.Source, "/") {
			if id, err := identify(x.Source); err == nil && id.block {
				part, hit = devs[devName(id.dev)]
			}
		}
		switch {
		case hit && part == "":
			out = append(out, "carries a file system mounted on "+x.Point)
		case hit:
			out = append(out, fmt.Sprintf("has a partition (%s) mounted on %s", part, x.Point))
		}
	}
	return out, nil
}

func (m machine) swapsOn(id identity) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(m.proc, "swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read swaps: %w", err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if name, _, _ := strings.Cut(line, " "); strings.HasPrefix(name, "/") {
			if other, err := identify(name); err == nil && other == id {
				return []string{"is used as swap"}, nil
			}
		}
	}
	return nil, nil
}

// holders are devices built on this one: LVM, md, crypt.
func (m machine) holders(dev uint64) []string {
	entries, err := os.ReadDir(filepath.Join(m.sys, "dev/block", devName(dev), "holders"))
	if err != nil {
		return nil // no such directory: nothing can be built on it
	}
	var out []string
	for _, e := range entries {
		out = append(out, "is held by "+e.Name())
	}
	return out
}

// loopsOver names loop devices over a file.
func (m machine) loopsOver(p string) ([]string, error) {
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", p, err)
	}
	files, err := filepath.Glob(filepath.Join(m.sys, "block/loop*/loop/backing_file"))
	if err != nil {
		return nil, nil //nolint:nilerr // only a bad pattern fails, and this one is constant
	}
	var out []string
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(text)) == real {
			out = append(out, "is in use by "+filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
	return out, nil
}

// Place returns "file:line" of a value for messages about it, or "".
func (c *Config) Place(path string) string {
	if c.src == nil {
		return ""
	}
	p := c.src.find(path)
	return c.src.name + ":" + strconv.Itoa(p.line)
}
