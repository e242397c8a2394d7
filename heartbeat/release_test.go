package heartbeat

import (
	"bytes"
	"testing"
	"time"

	"hapair/test/release"
)

// What a peer of release 0 tells of itself, and answers to a probe.
func TestTellingsOfRelease0(t *testing.T) {
	const incarnation, version, up = 0x1122334455667788, "0.1.0-3-gabcdef", 90061 * time.Second
	frozen := release.Parse(t, release.Frozen(t, "0", "told.txt", func() []byte {
		var n release.Named
		n.Add("meta", appendMeta(nil, incarnation, version))
		n.Add("uptime", appendUptime(nil, up))
		return n.Lines()
	}))
	meta, uptime := frozen[0].Bytes, frozen[1].Bytes
	if i, v, err := parseMeta(meta); i != incarnation || v != version || err != nil {
		t.Errorf("incarnation %x, version %q, %v", i, v, err)
	}
	if got, ok := parseUptime(uptime); !ok || got != up {
		t.Errorf("up for %v, %t", got, ok)
	}
	if b := appendMeta(nil, incarnation, version); !bytes.Equal(b, meta) {
		t.Errorf("told as %x, was %x", b, meta)
	}
	if b := appendUptime(nil, up); !bytes.HasPrefix(b, uptime) {
		t.Errorf("answered with %x, was %x", b, uptime)
	}
}
