package vip

import (
	"testing"

	"hapair/failover/vip/frame"
)

// Another station takes an address that is held: it is told, with its MAC, and the
// address stays. What is one's own is no claim of another.
func TestContestedIsTold(t *testing.T) {
	for name, prefix := range families {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			events := make(chan Event, 16)
			a := l.address(prefix, func(c *Config) { c.Event = func(e Event) { events <- e } })
			if err := l.start(l.one, a); err != nil {
				t.Fatal(err)
			}
			if err := l.start(l.one, a); err != nil { // announces again
				t.Fatal(err)
			}
			other := l.address(prefix, func(c *Config) { c.MayTake = func(*ConflictError) bool { return true } })
			if err := l.start(l.two, other); err != nil {
				t.Fatal(err)
			}
			if e := <-events; e.What != Contested || e.MAC != (frame.MAC{2, 0, 0, 0, 0, 2}) {
				t.Fatalf("%+v", e)
			}
			if !l.has(l.one, prefix) {
				t.Error("the address is gone")
			}
		})
	}
}
