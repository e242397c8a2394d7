package service

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	for text, want := range map[string]struct {
		flags uintptr
		data  string
	}{
		"":                           {},
		"defaults,_netdev,x-a=b":     {},
		"noatime,nodev,data=ordered": {unix.MS_NOATIME | unix.MS_NODEV, "data=ordered"},
		"ro,rw,discard,commit=5":     {0, "discard,commit=5"},
		"lazytime,,sync":             {unix.MS_LAZYTIME | unix.MS_SYNCHRONOUS, ""},
	} {
		flags, data, err := parseOptions(text)
		if err != nil || flags != want.flags || data != want.data {
			t.Errorf("%q: %x %q %v", text, flags, data, err)
		}
	}
	for _, bad := range []string{"bind", "rw,remount", "loop=/dev/loop1", "a\x00b"} {
		if _, _, err := parseOptions(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add("noatime,nodev,data=ordered")
	f.Add("ro,bind")
	f.Fuzz(func(t *testing.T, s string) {
		_, data, err := parseOptions(s)
		if err == nil && (strings.ContainsRune(data, 0) || len(data) > optionsBytesMax) {
			t.Fatalf("%q passes on %q", s, data)
		}
	})
}

func image(at int, magic string) []byte {
	b := make([]byte, 0x10100)
	copy(b[at:], magic)
	return b
}

func TestDetectType(t *testing.T) {
	ext := func(compat, incompat byte) []byte {
		b := image(extSuper+0x38, "\x53\xef")
		b[extSuper+0x5c], b[extSuper+0x60] = compat, incompat
		return b
	}
	for want, b := range map[string][]byte{
		"ext2": ext(0, 2), "ext3": ext(4, 2), "ext4": ext(4, 0x40),
		"xfs": image(0, "XFSB"), "btrfs": image(btrfsSuper, "_BHRfS_M"), "f2fs": image(1024, "\x10\x20\xf5\xf2"),
	} {
		if got, err := detectType(bytes.NewReader(b)); got != want || err != nil {
			t.Errorf("%s taken for %q, %v", want, got, err)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 100), image(0, "")} {
		if got, err := detectType(bytes.NewReader(b)); !errors.Is(err, ErrUnknownFilesystem) {
			t.Errorf("%d bytes taken for %q, %v", len(b), got, err)
		}
	}
}

func FuzzDetectType(f *testing.F) {
	f.Add(image(0, "XFSB")[:2048])
	f.Add(image(extSuper+0x38, "\x53\xef")[:2048])
	f.Add([]byte("X"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, err := detectType(bytes.NewReader(b))
		if (kind == "") != (err != nil) {
			t.Fatalf("%q %v", kind, err)
		}
	})
}

func TestFsckCodes(t *testing.T) {
	for code := range 256 {
		want := code == 0 || code == 1 || code == 2 || code == 3
		if fsckPasses(code) != want {
			t.Errorf("code %d (%s): passes %v", code, fsckMeaning(code), !want)
		}
	}
	if fsckPasses(-1) || fsckPasses(math.MinInt) {
		t.Error("a killed check passes")
	}
}

// The beginning of a command line has the program's name.
func TestHead(t *testing.T) {
	b := []byte("/usr/bin/postgres\x00-D  /srv/pg")
	for n, want := range map[int]string{100: "/usr/bin/postgres -D /srv/pg", 17: "/usr/bin/postgres …"} {
		if got := head([]byte(strings.ReplaceAll(string(b), "\x00", " ")), n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}
