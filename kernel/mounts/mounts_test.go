package mounts

import (
	"bytes"
	"os"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

const sample = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw,discard
36 35 7:3 / /srv/a\040b rw,noatime master:1 propagate_from:2 - ext4 /dev/loop3 ro,errors=remount-ro
90 22 0:45 /sub /data rw - btrfs /dev/sdb rw,subvol=/sub
91 22 0:46 / /x rw - tmpfs tmp\134fs rw
`

func TestParse(t *testing.T) {
	got, err := Parse([]byte(sample))
	want := []Mount{
		{Dev: unix.Mkdev(254, 0), Point: "/", Type: "ext4", Source: "/dev/root"},
		{Dev: unix.Mkdev(7, 3), Point: "/srv/a b", Type: "ext4", Source: "/dev/loop3", ReadOnly: true},
		{Dev: unix.Mkdev(0, 45), Point: "/data", Type: "btrfs", Source: "/dev/sdb"},
		{Dev: unix.Mkdev(0, 46), Point: "/x", Type: "tmpfs", Source: `tmp\fs`},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"1 2 3", "36 35 7:3 / /srv rw", "36 35 73 / /srv rw - ext4 /dev/x rw", "36 35 7:x / /srv rw - ext4 /dev/x rw", "36 35 7:3 / /srv rw - ext4"} {
		if got, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	if own, err := os.ReadFile(Own); err == nil {
		f.Add(own)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := Parse(b)
		if err != nil && all != nil {
			t.Fatal("an error and a result")
		}
		if len(all) > bytes.Count(b, []byte("\n"))+1 {
			t.Fatalf("%d mounts in %q", len(all), b)
		}
	})
}

func TestReadOwn(t *testing.T) {
	all, err := Read(Own)
	if err != nil || len(all) == 0 {
		t.Fatalf("%d mounts, %v", len(all), err)
	}
	if _, err := Read("/proc/none"); err == nil {
		t.Error("a table that is not there was read")
	}
}
