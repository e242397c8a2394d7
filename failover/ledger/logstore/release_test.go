package logstore

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"hapair/test/release"
)

// A store and a snapshot that release 0 wrote hold the same today.
func TestStoreOfRelease0(t *testing.T) {
	fresh := scratch(t)
	states, _ := script(t, fresh)
	writeSnapshot(t, fresh)
	dir := scratch(t)
	names, err := os.ReadDir(fresh)
	ok(t, err)
	names = slices.DeleteFunc(names, func(n os.DirEntry) bool { return n.Name() == "lock" || strings.HasSuffix(n.Name(), ".ballast") })
	for _, n := range names {
		made := func() []byte { b, err := os.ReadFile(filepath.Join(fresh, n.Name())); ok(t, err); return b }
		ok(t, os.WriteFile(filepath.Join(dir, n.Name()), release.Frozen(t, "0", n.Name(), made), 0o600))
	}
	if got, want := read(t, open(t, dir)), states[len(states)-1]; !reflect.DeepEqual(got, want) {
		t.Errorf("holds\n%+v\nand held\n%+v", got, want)
	}
	s, err := OpenSnapshots(dir, Options{Sync: noSync})
	ok(t, err)
	l, err := s.List()
	ok(t, err)
	if len(l) != 1 || l[0].Index != 5 || l[0].Term != 2 || l[0].Configuration.Servers[0].ID != "a" {
		t.Fatalf("%+v", l)
	}
	_, r, err := s.Open(l[0].ID)
	ok(t, err)
	if b, err := io.ReadAll(r); err != nil || string(b) != "a state" {
		t.Fatalf("%q, %v", b, err)
	}
	// What today's release writes, release 0 reads: the same bytes.
	for _, n := range names {
		now, err := os.ReadFile(filepath.Join(fresh, n.Name()))
		ok(t, err)
		if was := release.Frozen(t, "0", n.Name(), nil); string(now) != string(was) {
			t.Errorf("%s is written otherwise:\n%x\nwas\n%x", n.Name(), now, was)
		}
	}
}

func writeSnapshot(t *testing.T, dir string) {
	t.Helper()
	s, err := OpenSnapshots(dir, Options{Sync: noSync})
	ok(t, err)
	sink, err := s.Create(1, 5, 2, raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}, {ID: "b", Address: "b"}}}, 1, nil)
	ok(t, err)
	_, err = io.WriteString(sink, "a state")
	ok(t, err)
	ok(t, sink.Close())
}
