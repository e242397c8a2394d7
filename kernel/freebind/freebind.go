// Package freebind has listeners bound to addresses that no interface has yet.
package freebind

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Control, of a net.ListenConfig, lets a listener be bound before its address is
// configured, so that an agent may start before its cable is plugged in; or to one that
// another node has, where the configuration is the same on all.
func Control(network, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		if network == "tcp6" {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
			return
		}
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	})
	return errors.Join(err, set)
}
