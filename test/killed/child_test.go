package killed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hapair/failover/service"
	"hapair/mirror/block"
	"hapair/mirror/front/fronttest"
	"hapair/mirror/front/fuse"
)

// childWord makes the test's own program a victim: a process that serves a
// device and then waits for it.
const childWord = "killed-child"

// child is the victim from the inside.
type child struct {
	dir    string
	memory *fronttest.Memory
	front  *fuse.Fuse
	device string
}

const childBytes = 32 << 20

// calls are what a victim waits in. Each readies its world, then stops all
// answers with hold, and makes its call.
var calls = map[string]func(c *child) error{
	"attach":    (*child).attach,
	"withdraw":  (*child).withdraw,
	"pages":     (*child).pages,
	"namespace": (*child).namespace,
	"detect":    (*child).detect,
	"check":     (*child).check,
	"mount":     (*child).mount,
	"unmount":   (*child).unmount,
	"resolve":   (*child).resolve,
	"monitor":   (*child).monitor,
	"find":      (*child).find,
	"exec":      (*child).exec,
}

func runChild(name, dir string) error {
	c := &child{dir: dir, memory: fronttest.NewMemory(fronttest.Geometry(childBytes), 2)}
	c.front = fuse.New(fuse.Config{Mountpoint: pointIn(dir)})
	if err := calls[name](c); err != nil {
		return err
	}
	fmt.Println("ended") // the call did not wait
	return nil
}

func pointIn(dir string) string { return filepath.Join(dir, "fuse", "r0-0") }
func mountIn(dir string) string { return filepath.Join(dir, "srv") }

// hold stops all answers of the device and says so.
func (c *child) hold() {
	for _, op := range []block.Op{block.Read, block.Write, block.Flush, block.WriteZeroes, block.Discard} {
		c.memory.Hold(op)
	}
	fmt.Println("held")
}

// sleep waits to be killed.
func (c *child) sleep() error {
	_, err := os.Stdin.Read(make([]byte, 1))
	return err
}

func (c *child) start() (err error) {
	c.device, err = c.front.Start(context.Background(), c.memory, c.memory.Geometry())
	return err
}

// startFilesystem offers a device with an ext4 file system on it, in which
// is a directory with a program.
func (c *child) startFilesystem() error {
	if err := c.start(); err != nil {
		return err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", c.device).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	if err := c.mounted(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(mountIn(c.dir), "below", "data"), 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "/bin/true", filepath.Join(mountIn(c.dir), "below", "program")).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	if err := unix.Unmount(mountIn(c.dir), 0); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return c.forget()
}

// forget empties the page cache of the device, so that what is asked of it
// next must be read.
func (c *child) forget() error {
	fd, err := unix.Open(c.device, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", c.device, err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("flush %s: %w", c.device, err)
	}
	return nil
}

// mounted mounts the file system as a test would, not as the service does.
func (c *child) mounted() error {
	if err := os.MkdirAll(mountIn(c.dir), 0o755); err != nil {
		return err
	}
	if err := unix.Mount(c.device, mountIn(c.dir), "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return nil
}

// dirty leaves data in the page cache that only this process can take.
func (c *child) dirty(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(make([]byte, 1<<20), 0)
	return err
}

func (c *child) service(spec service.Spec) (service.Movable, error) {
	return service.New(spec, service.Deps{Resource: "r0", Node: "alpha", Device: func(int) (string, error) { return c.device, nil }})
}

func (c *child) mountService(change func(*service.Mount)) (service.Movable, error) {
	m := service.Mount{Path: mountIn(c.dir), Type: "ext4", NoFsck: true}
	if change != nil {
		change(&m)
	}
	return c.service(service.Spec{Mount: &m})
}

// attach waits in LOOP_CONFIGURE, which flushes.
func (c *child) attach() error {
	c.hold()
	return c.start()
}

// withdraw waits in the fsync before a device is withdrawn.
func (c *child) withdraw() error {
	if err := c.start(); err != nil {
		return err
	}
	if err := c.dirty(c.device); err != nil {
		return err
	}
	c.hold()
	return c.front.Stop(context.Background())
}

// pages waits for nothing before it is killed, but leaves pages of the device
// that are written when its last user closes it: the dying process.
func (c *child) pages() error {
	if err := c.start(); err != nil {
		return err
	}
	if err := c.dirty(c.device); err != nil {
		return err
	}
	c.hold()
	return c.sleep()
}

// namespace is the last process of its mount namespace: the file system on its
// own device is unmounted when it dies.
func (c *child) namespace() error {
	if err := c.startFilesystem(); err != nil {
		return err
	}
	if err := c.mounted(); err != nil {
		return err
	}
	if err := c.dirty(filepath.Join(mountIn(c.dir), "file")); err != nil {
		return err
	}
	c.hold()
	return c.sleep()
}

// detect waits for the superblock from which it reads the type.
func (c *child) detect() error {
	if err := c.startFilesystem(); err != nil {
		return err
	}
	m, err := c.mountService(func(m *service.Mount) { m.Type = "" })
	if err != nil {
		return err
	}
	c.hold()
	return m.Start(context.Background())
}

// check waits for e2fsck, which waits for the device.
func (c *child) check() error {
	if err := c.startFilesystem(); err != nil {
		return err
	}
	m, err := c.mountService(func(m *service.Mount) { m.NoFsck = false })
	if err != nil {
		return err
	}
	c.hold()
	return m.Start(context.Background())
}

func (c *child) mount() error {
	if err := c.startFilesystem(); err != nil {
		return err
	}
	m, err := c.mountService(nil)
	if err != nil {
		return err
	}
	c.hold()
	return m.Start(context.Background())
}

func (c *child) unmount() error {
	if err := c.startFilesystem(); err != nil {
		return err
	}
	m, err := c.mountService(nil)
	if err != nil {
		return err
	}
	if err := m.Start(context.Background()); err != nil {
		return err
	}
	if err := c.dirty(filepath.Join(mountIn(c.dir), "file")); err != nil {
		return err
	}
	c.hold()
	return m.Stop(context.Background())
}

// below is a service that is mounted below the file system on the device, as
// the second volume of a resource may be.
func (c *child) below() (service.Movable, error) {
	if err := c.startFilesystem(); err != nil {
		return nil, err
	}
	if err := c.mounted(); err != nil {
		return nil, err
	}
	return c.mountService(func(m *service.Mount) { m.Path = filepath.Join(mountIn(c.dir), "below", "data") })
}

// resolve waits for a directory on the device, to stop what is not started.
func (c *child) resolve() error {
	m, err := c.below()
	if err != nil {
		return err
	}
	c.hold()
	return m.Stop(context.Background())
}

func (c *child) monitor() error {
	m, err := c.below()
	if err != nil {
		return err
	}
	c.hold()
	_, err = m.Monitor(context.Background())
	return err
}

// find starts a program that lies on the device, and waits for its directory.
func (c *child) find() error { return c.program(false) }

// exec knows where the program is, and waits for what is in it.
func (c *child) exec() error { return c.program(true) }

func (c *child) program(known bool) error {
	if err := c.startFilesystem(); err != nil {
		return err
	}
	if err := c.mounted(); err != nil {
		return err
	}
	path := filepath.Join(mountIn(c.dir), "below", "program")
	if known {
		if _, err := os.Stat(path); err != nil {
			return err
		}
	}
	m, err := c.service(service.Spec{Exec: &service.Exec{Start: []string{path}, Stop: []string{path}}})
	if err != nil {
		return err
	}
	c.hold()
	return m.Start(context.Background())
}
