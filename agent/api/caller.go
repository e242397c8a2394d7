package api

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Caller is who holds the other end of the socket, by the kernel's word at the
// time it connected.
type Caller struct {
	UID    uint32
	GID    uint32
	PID    int32
	Groups []uint32 // supplementary
}

type callerKey struct{}

// CallerFrom returns who asked, for the record a backend keeps.
func CallerFrom(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// inGroup reports whether the caller is a member of gid.
func (c Caller) inGroup(gid uint32) bool {
	if c.GID == gid {
		return true
	}
	for _, g := range c.Groups {
		if g == gid {
			return true
		}
	}
	return false
}

// callerOf asks the kernel about a unix connection.
func callerOf(conn net.Conn) (Caller, error) {
	u, ok := conn.(syscall.Conn)
	if !ok || conn.LocalAddr().Network() != "unix" {
		return Caller{}, fmt.Errorf("identify caller: a %T tells nothing", conn)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Caller{}, fmt.Errorf("identify caller: %w", err)
	}
	var c Caller
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			inner = fmt.Errorf("identify caller: SO_PEERCRED: %w", err)
			return
		}
		c = Caller{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid, Groups: peerGroups(int(fd))}
	})
	if err != nil {
		return Caller{}, fmt.Errorf("identify caller: %w", err)
	}
	return c, inner
}

// maxPeerGroups is more than a login has; a caller in more counts as in none
// beyond its own, which only refuses.
const maxPeerGroups = 1024

func peerGroups(fd int) []uint32 {
	groups := make([]uint32, maxPeerGroups)
	size := uint32(len(groups) * 4)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil
	}
	return groups[:size/4]
}
