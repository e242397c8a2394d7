package front

import (
	"errors"
	"strings"
	"testing"

	"hapair/mirror/front/fuse"
)

func TestChoose(t *testing.T) {
	o := Options{Resource: "r0"}
	for _, kind := range []string{"ublk", "nbd"} {
		if _, _, err := Choose(kind, o); !errors.Is(err, ErrNotImplemented) || !strings.Contains(err.Error(), kind) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, _, err := Choose("iscsi", o); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("iscsi: %v", err)
	}
	f, why, err := Choose("export", o)
	if err != nil || f.Kind() != "export" || why == "" {
		t.Errorf("export: %v, %q", err, why)
	}
	for _, bad := range []Options{{}, {Resource: "a/b"}, {Resource: ".."}, {Resource: "r0", Volume: -1}} {
		if _, _, err := Choose("auto", bad); err == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

func TestAutoSaysWhy(t *testing.T) {
	want := "fuse"
	if fuse.Usable() != nil {
		want = "export"
	}
	f, why, err := Choose("auto", Options{Resource: "r0"})
	if err != nil || f.Kind() != want {
		t.Fatalf("auto: %v, %v", f, err)
	}
	if !strings.HasPrefix(why, want+": ") || !strings.Contains(why, "ublk: not implemented yet") {
		t.Errorf("why is %q", why)
	}
	broken := []maker{{kind: "fuse", usable: func() error { return errors.New("no /dev/fuse") }}, makers[3]}
	o := Options{Resource: "r0"}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	f, why, err = choose(broken, o)
	if err != nil || f.Kind() != "export" || !strings.Contains(why, "no /dev/fuse") {
		t.Errorf("without /dev/fuse: %v, %q, %v", f, why, err)
	}
	if _, _, err = choose(broken[:1], o); err == nil || !strings.Contains(err.Error(), "no /dev/fuse") {
		t.Errorf("with nothing: %v", err)
	}
}
