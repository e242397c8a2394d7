package vm

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// A frame reaches every other machine on a network whose cable is plugged in, and
// nobody else.
func TestHub(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "n")
	h, err := newHub(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	}()
	machines := map[string]*net.UnixConn{}
	for _, name := range []string{"a", "b", "c"} {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.port(name), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		machines[name] = c
		h.plug(name, true)
	}
	send := func(from, frame string) {
		if _, err := machines[from].WriteToUnix([]byte(frame), &net.UnixAddr{Name: filepath.Join(dir, "hub"), Net: "unixgram"}); err != nil {
			t.Fatal(err)
		}
	}
	takes := func(name, frame string) {
		t.Helper()
		b := make([]byte, 64)
		if err := machines[name].SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := machines[name].Read(b); err != nil || string(b[:n]) != frame {
			t.Fatalf("%s takes %q, %v; want %q", name, b[:n], err, frame)
		}
	}
	send("a", "1")
	takes("b", "1")
	takes("c", "1")
	h.plug("b", false)
	send("b", "2") // into the dark
	send("a", "3") // the order is kept: b's would have been first
	takes("c", "3")
	h.plug("b", true)
	send("c", "4")
	takes("a", "4") // and neither its own, nor b's
	takes("b", "4") // and not what came while it was dark
}
