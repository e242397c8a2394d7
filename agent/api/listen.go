package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// ErrInUse says that another agent answers on the socket.
var ErrInUse = errors.New("another agent answers on this socket")

// Listen opens the control socket: mode 0660, owned by root and group (root
// only when group is "" or unknown on this machine; the bool says which). Its
// directory is made passable for the group. A stale socket is replaced, one
// that answers is not.
func Listen(path, group string) (l net.Listener, groupFound bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, false, fmt.Errorf("make directory of socket: %w", err)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close() //nolint:errcheck // only asked whether somebody is there
		return nil, false, fmt.Errorf("listen on %s: %w", path, ErrInUse)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSocket == 0 {
		return nil, false, fmt.Errorf("listen on %s: the name is taken by something that is not a socket", path)
	}
	// The socket gets its owner under another name and its own name last, so
	// that nobody meets it half made.
	young := path + ".new"
	if err := os.Remove(young); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("remove stale socket: %w", err)
	}
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Name: young, Net: "unix"})
	if err != nil {
		return nil, false, fmt.Errorf("listen on %s: %w", path, err)
	}
	ul.SetUnlinkOnClose(false)
	groupFound, err = own(young, group)
	if err == nil && groupFound {
		err = letPass(filepath.Dir(path))
	}
	if err == nil {
		err = os.Rename(young, path)
	}
	if err != nil {
		ul.Close() //nolint:errcheck // the error that matters is returned
		return nil, false, fmt.Errorf("set up socket %s: %w", path, err)
	}
	return &listener{UnixListener: ul, path: path}, groupFound, nil
}

func own(path, group string) (found bool, err error) {
	if err := os.Chmod(path, 0o660); err != nil {
		return false, err
	}
	gid, found := GroupID(group)
	if !found {
		return false, nil
	}
	return true, os.Chown(path, -1, int(gid))
}

// letPass lets everybody pass through a directory, not look into it: what is in
// there protects itself, as the socket does. An earlier version made it root's
// alone.
func letPass(dir string) error {
	const pass = 0o011
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm()&pass == pass {
		return err
	}
	return os.Chmod(dir, st.Mode()&(fs.ModePerm|fs.ModeSticky|fs.ModeSetgid)|pass)
}

// GroupID looks a group up by name or number; false when there is none.
func GroupID(group string) (uint32, bool) {
	if group == "" {
		return 0, false
	}
	if n, err := strconv.ParseUint(group, 10, 32); err == nil {
		return uint32(n), true
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(n), err == nil
}

// listener removes its name when closed.
type listener struct {
	*net.UnixListener
	path string
}

// Close stops listening and removes the socket's name.
func (l *listener) Close() error {
	err := l.UnixListener.Close()
	if rmErr := os.Remove(l.path); err == nil && rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
		err = rmErr
	}
	return err
}
