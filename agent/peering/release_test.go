package peering

import (
	"bytes"
	"reflect"
	"testing"

	"hapair/test/release"
)

var (
	helloOf0   = &hello{min: 1, max: 1, incarnation: 0x1122334455667788, cluster: "c1", from: "alpha", to: "beta", path: "crossover", purpose: "mirror/pg/data"}
	answersOf0 = map[string]*answer{
		"accepted": {code: Accepted, version: 1, incarnation: 7, node: "beta", text: ""},
		"refused":  {code: NoVersion, version: 1, incarnation: 7, node: "beta", text: "peer speaks versions 2 to 3, this node 1 to 1"},
	}
)

// The first words of two nodes of release 0 mean the same today, and are said so.
func TestHandshakeOfRelease0(t *testing.T) {
	frozen := release.Parse(t, release.Frozen(t, "0", "handshake.txt", func() []byte {
		var n release.Named
		n.Add("hello", helloOf0.append(nil))
		for _, name := range []string{"accepted", "refused"} {
			n.Add(name, answersOf0[name].append(nil))
		}
		return n.Lines()
	}))
	for _, f := range frozen {
		if f.Name == "hello" {
			if h, err := parseHello(f.Bytes); err != nil || !reflect.DeepEqual(h, helloOf0) {
				t.Errorf("%+v, %v", h, err)
			}
			if b := helloOf0.append(nil); !bytes.HasPrefix(b, f.Bytes) {
				t.Errorf("said as %x, was %x", b, f.Bytes)
			}
			continue
		}
		if a, err := parseAnswer(f.Bytes); err != nil || !reflect.DeepEqual(a, answersOf0[f.Name]) {
			t.Errorf("%s: %+v, %v", f.Name, a, err)
		}
		if b := answersOf0[f.Name].append(nil); !bytes.HasPrefix(b, f.Bytes) {
			t.Errorf("%s: said as %x, was %x", f.Name, b, f.Bytes)
		}
	}
}

// Two releases speak the highest version that both know; where there is none, the
// answer says what each speaks.
func TestVersionsAreJudged(t *testing.T) {
	n := &Net{cfg: Config{Cluster: "c1", Node: "beta"}}
	n.mu.nodes = map[string]map[string]string{"alpha": {}}
	for _, c := range []struct {
		min, max uint16
		code     Code
	}{{1, 1, Accepted}, {1, MaxVersion + 7, Accepted}, {MaxVersion + 1, MaxVersion + 2, NoVersion}} {
		h := *helloOf0
		h.min, h.max, h.incarnation = c.min, c.max, 0
		code, text := n.judgeHello(&h, "alpha", 0, true)
		if code != c.code || code == NoVersion && text != "peer speaks versions 2 to 3, this node 1 to 1" {
			t.Errorf("%d to %d: %d, %q", c.min, c.max, code, text)
		}
	}
}
