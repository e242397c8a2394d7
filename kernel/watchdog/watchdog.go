// Package watchdog is a watchdog device of the kernel. Whoever opens one has the
// machine reset, by the kernel (softdog) or by a chip, once nobody has petted it
// for its time-out; to close it does not end that, but after a letter that says so.
package watchdog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What is wrong with a device; errors of Open wrap one of them, or the kernel's.
var (
	ErrMissing = errors.New("there is no such device: is the driver loaded? softdog, or the chip's, see modprobe(8)")
	ErrBusy    = errors.New("another process has it open: RuntimeWatchdogSec= of systemd, watchdogd or sbd?")
	ErrNotOne  = errors.New("it is not a watchdog device")
	ErrTimeout = errors.New("its driver does not take that time-out")
	ErrTame    = errors.New("its driver stops it when it is closed, however that comes about: a process that was killed would not be noticed")
)

// disarms is what is written before a device is closed so that it stops.
const disarms = "V"

// Info is what a device says of itself.
type Info struct {
	Path     string
	Identity string        // of the driver
	Timeout  time.Duration // from the last pet to the reset, in whole seconds
	// NoWayOut says that it cannot be stopped once it was opened; Known, that the
	// kernel tells which.
	NoWayOut, Known bool
	// WasReset says that the machine began as it is because a watchdog had reset it,
	// as far as the driver can tell.
	WasReset bool
}

// Device is an open watchdog: armed. One goroutine at a time uses it.
type Device struct {
	fd   int
	info Info
}

// Open opens a watchdog, by which it is armed, and sets its time-out, in whole
// seconds; a driver may take another one, see Info. What cannot be used is left
// as it was found: armed where another process has left it so, which armed says.
func Open(path string, timeout time.Duration, armed bool) (*Device, error) {
	d, err := open(path, timeout, armed)
	if err != nil {
		return nil, fmt.Errorf("watchdog %s: %w", path, err)
	}
	return d, nil
}

func open(path string, timeout time.Duration, armed bool) (*Device, error) {
	if err := Look(path); err != nil {
		return nil, err
	}
	if err := takes(sysfs(path), timeout); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	switch {
	case err == unix.EBUSY:
		return nil, fmt.Errorf("open: %w: %w", ErrBusy, err)
	case err != nil:
		return nil, fmt.Errorf("open: %w", err)
	}
	d := &Device{fd: fd, info: Info{Path: path}}
	switch err := d.learn(timeout); {
	case err != nil && armed:
		return nil, errors.Join(err, d.Leave())
	case err != nil:
		return nil, errors.Join(err, d.Disarm())
	}
	return d, nil
}

// Look tells whether there is a device at path that may be a watchdog. It opens
// nothing: that would arm it.
func Look(path string) error {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	switch {
	case err == unix.ENOENT, err == unix.ENODEV:
		return fmt.Errorf("%w: %w", ErrMissing, err)
	case err != nil:
		return fmt.Errorf("stat: %w", err)
	case st.Mode&unix.S_IFMT != unix.S_IFCHR:
		return fmt.Errorf("%w: no character device", ErrNotOne)
	}
	return nil
}

func (d *Device) learn(timeout time.Duration) error {
	info, err := unix.IoctlGetWatchdogInfo(d.fd)
	if err == unix.ENOTTY || err == unix.EINVAL {
		return fmt.Errorf("%w: %w", ErrNotOne, err)
	} else if err != nil {
		return fmt.Errorf("WDIOC_GETSUPPORT: %w", err)
	}
	d.info.Identity = string(bytes.TrimRight(info.Identity[:], "\x00"))
	d.info.NoWayOut, d.info.Known = noWayOut(d.info.Path)
	if info.Options&unix.WDIOF_MAGICCLOSE == 0 && !d.info.NoWayOut {
		return fmt.Errorf("%s: %w", d.info.Identity, ErrTame)
	}
	if info.Options&unix.WDIOF_SETTIMEOUT != 0 {
		seconds := whole(timeout)
		if err := unix.IoctlSetPointerInt(d.fd, unix.WDIOC_SETTIMEOUT, seconds); err != nil {
			return fmt.Errorf("%s: a time-out of %d s: %w", d.info.Identity, seconds, err)
		}
	}
	got, err := unix.IoctlGetInt(d.fd, unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return fmt.Errorf("%s: WDIOC_GETTIMEOUT: %w", d.info.Identity, err)
	}
	if got <= 0 {
		return fmt.Errorf("%s: its time-out is %d s", d.info.Identity, got)
	}
	d.info.Timeout = time.Duration(got) * time.Second
	if why, err := unix.IoctlGetInt(d.fd, unix.WDIOC_GETBOOTSTATUS); err == nil {
		d.info.WasReset = why&unix.WDIOF_CARDRESET != 0
	}
	return nil
}

// Info returns what the device said when it was opened.
func (d *Device) Info() Info { return d.info }

// Pet puts the reset off by the time-out, from now on.
func (d *Device) Pet() error {
	if err := unix.IoctlWatchdogKeepalive(d.fd); err != nil {
		return fmt.Errorf("watchdog %s: pet: %w", d.info.Path, err)
	}
	return nil
}

// Disarm stops the watchdog and closes it. Where there is no way out, or after an
// error, the machine is reset.
func (d *Device) Disarm() error {
	n, err := unix.Write(d.fd, []byte(disarms))
	if err == nil && n != len(disarms) {
		err = unix.EIO
	}
	if err := errors.Join(err, unix.Close(d.fd)); err != nil {
		return fmt.Errorf("watchdog %s: stop: %w", d.info.Path, err)
	}
	return nil
}

// Leave closes the watchdog and leaves it armed: the machine is reset, unless
// somebody opens it before.
func (d *Device) Leave() error {
	if err := unix.Close(d.fd); err != nil {
		return fmt.Errorf("watchdog %s: close: %w", d.info.Path, err)
	}
	return nil
}

// oldMinor is the number of /dev/watchdog, which is the first of the watchdogs
// under a name of its own; all others have /dev/watchdogN.
const (
	miscMajor = 10
	oldMinor  = 130
)

// whole is a time-out as the kernel takes it, in seconds.
func whole(timeout time.Duration) int { return int((timeout + time.Second - 1) / time.Second) }

// sysfs is where the kernel tells of a device without its being opened, "" if that is
// not to be found out. One that was built without CONFIG_WATCHDOG_SYSFS tells nothing.
func sysfs(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ""
	}
	if major, minor := unix.Major(st.Rdev), unix.Minor(st.Rdev); major != miscMajor || minor != oldMinor {
		return filepath.Join("/sys/dev/char", strconv.Itoa(int(major))+":"+strconv.Itoa(int(minor)))
	}
	return "/sys/class/watchdog/watchdog0"
}

// number reads one of the files there.
func number(dir, name string) (n int, known bool) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || dir == "" {
		return 0, false
	}
	n, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return n, err == nil
}

// noWayOut asks the kernel whether a device can be stopped.
func noWayOut(path string) (no, known bool) {
	n, known := number(sysfs(path), "nowayout")
	return n == 1, known
}

// takes is an error where a device cannot be stopped, and its driver would refuse the
// time-out once it is open: nobody would pet it. One that can be stopped is asked. A
// maximum of 0 is none; the kernel tells of both bounds since 5.14.
func takes(dir string, timeout time.Duration) error {
	if n, _ := number(dir, "nowayout"); n != 1 {
		return nil
	}
	least, _ := number(dir, "min_timeout")
	most, _ := number(dir, "max_timeout")
	if s := whole(timeout); s < least || most > 0 && s > most {
		return fmt.Errorf("%w of %d s: %d to %d s are possible, and it is not opened, as it cannot be stopped again (nowayout)", ErrTimeout, s, least, most)
	}
	return nil
}
