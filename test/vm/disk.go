package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"hapair/mirror/block"
	"hapair/mirror/front/export"
	"hapair/mirror/store"
	"hapair/test/fault"
)

// disk is a disk of a machine, with a volatile cache: QEMU reaches it as a client
// of NBD. The cache is in this process, and what is in it when the power goes is
// lost, whoever wrote it: an agent, or the file system of the machine.
//
// The file is what survives: the medium. A shared disk has a power of its own, and no
// cache that is lost with a machine's.
type disk struct {
	file   string
	socket string
	cache  *fault.Cache // nil: shared
	rules  *fault.Disk
	door   *export.Export // nil while the power is off
}

// liar is a disk that answers flushes and does nothing. So does QEMU with
// cache=unsafe.
type liar struct{ block.Disk }

// Submit implements block.Disk.
func (l liar) Submit(r *block.Request) {
	if r.Op == block.Flush {
		r.Answer(nil)
		return
	}
	l.Disk.Submit(r)
}

// openDisk opens a file as a disk. It lies if its flushes are to do nothing.
func openDisk(file, socket string, o fault.CacheOptions, lies bool) (*disk, error) {
	medium, err := store.Open(file, store.Options{})
	if err != nil {
		return nil, err
	}
	d := &disk{file: file, socket: socket, cache: fault.NewCache(medium, o)}
	if lies {
		d.rules = fault.New(liar{d.cache})
	} else {
		d.rules = fault.New(d.cache)
	}
	return d, nil
}

// borrowed is a shared disk, which each machine has a way to: no machine closes it.
type borrowed struct{ block.Disk }

// Close implements block.Disk.
func (borrowed) Close() error { return nil }

// openShared is a machine's way to a disk that others have a way to as well. All
// requests end in one block.Disk: what is answered to one machine the others read. Rules
// are of this way.
func openShared(file, socket string, medium block.Disk) *disk {
	return &disk{file: file, socket: socket, rules: fault.New(borrowed{medium})}
}

// powerOn lets QEMU connect. What the disk was told to do is forgotten.
func (d *disk) powerOn(ctx context.Context) error {
	d.works()
	door := export.New(export.Config{Socket: d.socket})
	if _, err := door.Start(ctx, d.rules, d.rules.Geometry()); err != nil {
		return err
	}
	d.door = door
	return nil
}

// powerOff returns how many bytes are lost, when no request is under way any more.
// QEMU is dead: nobody is answered.
func (d *disk) powerOff(ctx context.Context) (lost int64, err error) {
	if d.door == nil {
		return 0, nil
	}
	err = d.door.Abort(ctx)
	d.works() // or what hangs would be waited for; it is in the cache then, and lost with it
	err = errors.Join(err, d.door.Stop(ctx))
	d.door = nil
	if d.cache != nil {
		lost = d.cache.Drop()
	}
	return lost, err
}

// tell adds a rule, see package fault.
func (d *disk) tell(rule string) error {
	u, err := fault.ParseRule(rule)
	if err == nil {
		d.rules.Add(u)
	}
	return err
}

// works lets the disk work as any other.
func (d *disk) works() {
	d.rules.Clear()
	d.rules.Release()
}

// close is for a disk whose power is off.
func (d *disk) close() error { return d.rules.Close() }

// arguments are QEMU's for the nth disk of a machine. What the guest flushes, QEMU
// flushes here.
func (d *disk) arguments(n int) []string {
	return []string{
		"-blockdev", fmt.Sprintf("driver=nbd,node-name=d%d,server.type=unix,server.path=%s", n, d.socket),
		"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,addr=%#x,write-cache=on", n, 4+n),
	}
}

// makeFile makes an empty file for a disk, with a file system perhaps.
func makeFile(file string, size int64, ext4 bool) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(file, size); err != nil {
		return err
	}
	if !ext4 {
		return nil
	}
	mkfs, err := findTool("mkfs.ext4")
	if err != nil {
		return err
	}
	out, err := exec.Command(mkfs, "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4 %s: %w: %s", file, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// findTool finds a program, where root would as well.
func findTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if err != nil {
			path, err = exec.LookPath(dir + name)
		}
	}
	return path, err
}
