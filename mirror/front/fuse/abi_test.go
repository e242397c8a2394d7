package fuse

import (
	"errors"
	"testing"

	"hapair/mirror/block"
)

// greeting is an init of the kernel.
func greeting(major, minor, flags uint32) []byte {
	b := make([]byte, headBytes+ioHeadBytes)
	native.PutUint32(b, uint32(len(b)))
	native.PutUint32(b[4:], opInit)
	native.PutUint32(b[headBytes:], major)
	native.PutUint32(b[headBytes+4:], minor)
	native.PutUint32(b[headBytes+12:], flags)
	return b
}

func TestInitReply(t *testing.T) {
	for _, c := range []struct {
		name                string
		major, minor, flags uint32
		ok                  bool
	}{
		{"this kernel", 7, 45, 0xffffffff, true},
		{"the oldest", 7, 28, initAsyncRead | initBigWrites | initAsyncDIO | initMaxPages, true},
		{"too old", 7, 27, 0xffffffff, false},
		{"another protocol", 8, 1, 0xffffffff, false},
		{"no asynchronous direct I/O", 7, 45, 0xffffffff &^ initAsyncDIO, false},
	} {
		b := greeting(c.major, c.minor, c.flags)
		m, err := parseMessage(b, len(b))
		if err != nil {
			t.Fatal(err)
		}
		reply, err := initReply(m)
		if c.ok != (err == nil) || c.ok && (len(reply) != 64 || native.Uint32(reply[4:]) > c.minor || native.Uint32(reply[20:]) != 1<<20) {
			t.Errorf("%s: %v, % x", c.name, err, reply)
		}
	}
}

func TestMeaning(t *testing.T) {
	for _, c := range []struct {
		mode    uint32
		discard bool
		flags   block.Flags
		ok      bool
	}{
		{fallocPunchHole | fallocKeepSize, true, 0, true},
		{fallocPunchHole | fallocKeepSize, false, 0, false},
		{fallocZeroRange | fallocKeepSize, true, block.NoUnmap, true},
		{fallocZeroRange, false, block.NoUnmap, true},
		{0, true, 0, false},
		{8, true, 0, false}, // collapse
	} {
		flags, err := meaning(c.mode, c.discard)
		if c.ok != (err == nil) || flags != c.flags {
			t.Errorf("mode %#x, discard %v: %v, %v", c.mode, c.discard, flags, err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(greeting(7, 45, 0xffffffff))
	f.Add(greeting(7, 45, 0)[:headBytes+8])
	f.Add([]byte{40, 0, 0, 0})
	write := greeting(0, 0, 0)
	native.PutUint32(write[4:], opWrite)
	native.PutUint32(write[headBytes+16:], 1<<31)
	f.Add(write)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b[:min(len(b), headBytes+ioHeadBytes)], len(b))
		if err != nil {
			if !errors.Is(err, errProtocol) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		for _, parse := range []func(message) error{
			func(m message) error { _, err := parseTransfer(m); return err },
			func(m message) error { _, err := parseHole(m); return err },
		} {
			if err := parse(m); err != nil && !errors.Is(err, errProtocol) {
				t.Fatalf("an error of another kind: %v", err)
			}
		}
		if reply, err := initReply(m); err == nil && native.Uint16(reply[28:]) != pagesMax {
			t.Fatalf("reply % x", reply)
		}
	})
}
