package sbd

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	kept "hapair/test/release"
)

var at = time.Date(2026, 11, 27, 10, 0, 0, 0, time.UTC)

// records0 are of release 0, each with how it is read.
func records0() map[string]interface{ encode() []byte } {
	disk := Name("a disk")
	return map[string]interface{ encode() []byte }{
		"head": &Head{Disk: disk, Cluster: "shop", Nodes: [2]string{"alpha", "beta"}, Made: at},
		"slot": &Slot{Disk: disk, Node: "beta", Armed: true, Life: Name("boot"), Machine: Name("machine"), Timeout: 10 * time.Second, Valid: 5 * time.Second, Seq: 7, At: at},
		"mail": &Mail{Disk: disk, Pill: true, To: Name("boot"), From: "alpha", Why: "it is silent", Seq: 3, At: at},
	}
}

var names0 = []string{"head", "slot", "mail"}

func decode(name string, b []byte) (any, error) {
	switch name {
	case "head":
		h, err := decodeHead(b)
		return &h, err
	case "slot":
		s, err := decodeSlot(b)
		return &s, err
	}
	m, err := decodeMail(b)
	return &m, err
}

// What release 0 wrote means the same today, and is written as it was.
func TestRecordsOfRelease0(t *testing.T) {
	all := records0()
	was := kept.Parse(t, kept.Frozen(t, "0", "records.txt", func() []byte {
		var n kept.Named
		for _, name := range names0 {
			n.Add(name, all[name].encode())
		}
		return n.Lines()
	}))
	for _, f := range was {
		got, err := decode(f.Name, f.Bytes)
		if err != nil || !reflect.DeepEqual(got, all[f.Name]) {
			t.Errorf("%s: %v: %+v, was %+v", f.Name, err, got, all[f.Name])
		}
		if b := all[f.Name].encode(); !bytes.Equal(b, f.Bytes) || len(b) != recordBytes {
			t.Errorf("%s is written otherwise", f.Name)
		}
	}
}

// A record that was torn as it was written is the old one, the new one, or damaged.
func TestTornRecord(t *testing.T) {
	old, next := Mail{Disk: Name("d"), Seq: 1, At: at}, Mail{Disk: Name("d"), Pill: true, To: Name("boot"), From: "alpha", Why: strings.Repeat("x", whyMax), Seq: 2, At: at}
	was, is := old.encode(), next.encode()
	for n := range recordBytes + 1 {
		m, err := decodeMail(append(bytes.Clone(is[:n]), was[n:]...))
		if err == nil && m != old && m != next || err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("torn after %d bytes: %+v, %v", n, m, err)
		}
	}
}

func TestNotARecord(t *testing.T) {
	good := records0()["slot"].encode()
	change := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	resum := func(b []byte) []byte { w := &writer{b: [recordBytes]byte(b)}; return w.end() }
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"short": {good[:100], ErrDamaged}, "blank": {make([]byte, recordBytes), ErrBlank}, "foreign": {append([]byte("SBD_SBD_"), good[8:]...), ErrForeign},
		"flipped": {change(100, 0xff), ErrDamaged}, "of a later release": {resum(change(offVersion, 2)), ErrNewer}, "another kind": {records0()["mail"].encode(), ErrDamaged},
		"a state": {resum(change(offState, 2)), ErrDamaged}, "a name that is too long": {resum(change(offBody+64, 200)), ErrDamaged}, "a time-out of years": {resum(change(offBody+39, 0x7f)), ErrDamaged},
	} {
		if s, err := decodeSlot(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v, want %v", name, s, err, c.want)
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, name := range names0 {
		f.Add(records0()[name].encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range names0 {
			got, err := decode(name, b)
			if err != nil {
				continue
			}
			again, err := decode(name, got.(interface{ encode() []byte }).encode())
			if err != nil || !reflect.DeepEqual(got, again) {
				t.Errorf("%s: %+v is read again as %+v, %v", name, got, again, err)
			}
		}
	})
}
