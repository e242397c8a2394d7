package sbd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// direct is a path in a directory whose files take direct I/O.
func direct(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if _, err := Create(path, owner, false); errors.Is(err, ErrBuffered) {
		t.Skipf("needs a directory that is not in memory: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// A new disk is blank for both nodes; what is written is read by another who has it open.
func TestDisk(t *testing.T) {
	path := direct(t)
	h, err := Create(path, owner, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(path, owner); err != nil {
		t.Error(err)
	}
	l, err := Show(path)
	if err != nil || l.Head.Disk != h.Disk || len(l.Slots) != 2 || l.Slots[1].Node != "beta" || l.Slots[1].Slot.Armed || l.Slots[1].Mail.Pill || l.Slots[0].SlotErr != nil || l.Slots[0].MailErr != nil {
		t.Errorf("%+v, %v", l, err)
	}
	var two [2]*area
	for i := range two {
		d, err := OpenDisk(path)
		if err == nil {
			two[i], err = take(d, owner)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
	}
	s, m := Slot{Disk: h.Disk, Node: "beta", Armed: true, Life: Name("x"), Timeout: time.Second, Valid: time.Second, Seq: 1, At: at}, Mail{Disk: h.Disk, Pill: true, From: "alpha", At: at}
	if err := errors.Join(two[0].putSlot(s), two[0].putMail("beta", m)); err != nil {
		t.Fatal(err)
	}
	if got, err := two[1].slot("beta"); err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := two[1].mail("beta"); err != nil || got != m {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := two[1].mail("alpha"); err != nil || got.Pill {
		t.Errorf("%+v, %v", got, err)
	}
}

// What is not blank is left as it is.
func TestCreateRefuses(t *testing.T) {
	path := direct(t)
	content := func(at int, text string) func() {
		return func() {
			b := make([]byte, 4*areaBytes)
			copy(b[at:], text)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for want, before := range map[string]func(){
		"ClusterLabs' sbd": content(0, "SBD_SBD_"), "an ext file system": content(0x438, "\x53\xef"), "something is on it": content(4*areaBytes-5, "x"),
		"btrfs": content(0x10040, "_BHRfS_M"), "512 bytes, and 65536 are needed": func() {
			if err := os.WriteFile(path, make([]byte, 512), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		before()
		was, _ := os.ReadFile(path)
		_, err := Create(path, owner, true)
		if now, _ := os.ReadFile(path); err == nil || !strings.Contains(err.Error(), want) || string(now) != string(was) {
			t.Errorf("%s: %v; it is as it was: %v", want, err, string(now) == string(was))
		}
		if err := Check(path, owner); err == nil {
			t.Errorf("%s: it is taken for one", want)
		}
	}
	for _, bad := range []string{"/dev/nowhere", "/dev/null", t.TempDir()} {
		if _, err := Create(bad, owner, true); err == nil {
			t.Errorf("%s is made one", bad)
		}
	}
	if _, err := os.Stat("/dev/nowhere"); err == nil {
		t.Error("a file was made below /dev")
	}
}

// One that is made already is made anew by force only, and is another one then.
func TestCreateAgain(t *testing.T) {
	path := direct(t)
	first, err := Create(path, owner, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path, owner, false); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "--force") {
		t.Error(err)
	}
	again, err := Create(path, owner, true)
	if err != nil || again.Disk == first.Disk {
		t.Errorf("%+v, %v", again, err)
	}
	for _, other := range []Owner{{"another", owner.Nodes}, {"shop", []string{"alpha", "gamma"}}} {
		if err := Check(path, other); !errors.Is(err, ErrOther) {
			t.Errorf("%+v: %v", other, err)
		}
		d, err := OpenDisk(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := take(d, other); !errors.Is(err, ErrOther) {
			t.Errorf("%+v: %v", other, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}
