package link

import (
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The two streams of a strand are two flows to whatever lies between the nodes: a bond or
// routes of equal cost may send one over a cable that is dead, a firewall may have forgotten
// one. Then the peer is heard on the other, and the session would wait for a dead one as
// long as TCP does. So each is watched by itself: the control stream by what is said on
// it, the data stream, on which there may be nothing to say, by what its socket knows.

// stuckSilences times Silence may pass without a word on one of the streams while the other
// is heard: longer than where nothing is heard at all, for a lone frame that is lost twice
// is no dead flow.
const stuckSilences = 2

// vigil is what watch knows of the streams of a strand. It has one owner.
type vigil struct {
	st    *strand
	since time.Duration // by Link.now: when the data stream was last known to owe no acknowledgement, or to get one
}

// stuck says which stream of st is dead beside one that is not; nil when none is known to be.
func (v *vigil) stuck(s *session, st *strand, now time.Duration) error {
	if v.st != st {
		v.st, v.since = st, now
	}
	silence := s.link.cfg.Silence
	limit := stuckSilences * silence
	if silent := now - time.Duration(st.said.Load()); silent > limit {
		return fmt.Errorf("on the control stream for %s, limit %s: %w", silent.Round(time.Millisecond), limit, ErrSilent)
	}
	if f, ok := sendingOf(st.pair.data); ok && v.overdue(f, now, silence) {
		return fmt.Errorf("data stream: no acknowledgement for %s, limit %s: %w", (now - v.since).Round(time.Millisecond), limit, ErrSilent)
	}
	return nil
}

// overdue takes what the kernel knows of the data stream at now, and reports whether
// acknowledgements are overdue. A peer that does not read acknowledges whatever it is sent,
// though it may take nothing of it, and is asked by the kernel at ever longer intervals:
// between two of them it owes nothing. So what was last sent must be without an answer, too.
func (v *vigil) overdue(f sending, now, silence time.Duration) bool {
	if !f.waits {
		v.since = now
		return false
	}
	v.since = max(v.since, now-f.acked)
	return now-v.since > stuckSilences*silence && f.acked > f.sent && f.sent > silence/2
}

// anew gives the peer its time anew.
func (v *vigil) anew(st *strand, now time.Duration) {
	v.st, v.since = st, now
	st.said.Store(int64(now))
}

// sending is what the kernel knows of what a TCP connection has sent.
type sending struct {
	waits bool          // something was sent that is not acknowledged
	acked time.Duration // ago: the last acknowledgement, of whatever
	sent  time.Duration // ago: the last segment with data, sent again or not
}

// sendingOf asks the socket below a stream; false where there is none, or it is closed.
func sendingOf(conn net.Conn) (f sending, ok bool) {
	socket := socketOf(conn)
	if socket == nil {
		return sending{}, false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return sending{}, false
	}
	var i *unix.TCPInfo
	var get error
	if err := raw.Control(func(fd uintptr) { i, get = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil || get != nil {
		return sending{}, false
	}
	ms := func(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
	return sending{waits: i.Unacked > 0, acked: ms(i.Last_ack_recv), sent: ms(i.Last_data_sent)}, true
}

// socketOf is the socket below a stream, nil where there is none.
func socketOf(conn net.Conn) syscall.Conn {
	switch c := conn.(type) {
	case interface{ Below() syscall.Conn }:
		return c.Below()
	case syscall.Conn:
		return c
	}
	return nil
}
