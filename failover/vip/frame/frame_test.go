package frame

import (
	"bytes"
	"encoding/hex"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

var (
	self = MAC{0x02, 0x00, 0x5e, 0x10, 0x00, 0x01}
	four = netip.MustParseAddr("192.168.1.50")
	six  = netip.MustParseAddr("fd00:1::50:abcd")
)

func frames() map[string][]byte {
	return map[string][]byte{
		"arp-probe":            ARPProbe(self, four),
		"arp-announce-request": ARPAnnounceRequest(self, four),
		"arp-announce-reply":   ARPAnnounceReply(self, four),
		"ns-probe":             NSProbe(self, six),
		"na-announce":          NAAnnounce(self, six),
	}
}

func TestGolden(t *testing.T) {
	for name, b := range frames() {
		file := filepath.Join("testdata", name+".hex")
		got := hexLines(b)
		if *rewrite {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s:\n%swant\n%s", name, got, want)
		}
	}
}

func hexLines(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		n := min(len(b), 16)
		s.WriteString(hex.EncodeToString(b[:n]) + "\n")
		b = b[n:]
	}
	return s.String()
}

func TestClaims(t *testing.T) {
	want := map[string]Claim{
		"arp-probe":            {Addr: four, MAC: self, Probe: true},
		"arp-announce-request": {Addr: four, MAC: self},
		"arp-announce-reply":   {Addr: four, MAC: self},
		"ns-probe":             {Addr: six, MAC: self, Probe: true},
		"na-announce":          {Addr: six, MAC: self},
	}
	for name, b := range frames() {
		c, ok := parse(b)
		if !ok || c != want[name] {
			t.Errorf("%s: %+v %v, want %+v", name, c, ok, want[name])
		}
	}
}

func parse(b []byte) (Claim, bool) {
	if c, ok := ParseARP(b); ok {
		return c, ok
	}
	return ParseND(b)
}

func TestNotAClaim(t *testing.T) {
	ordinary := NSProbe(self, six) // asks from a real address: no claim
	copy(ordinary[etherBytes+8:], netip.MustParseAddr("fd00:1::7").AsSlice())
	refuse := map[string][]byte{
		"empty":              nil,
		"short arp":          ARPProbe(self, four)[:41],
		"wrong hop limit":    mutate(NAAnnounce(self, six), etherBytes+7, 64),
		"bad checksum":       mutate(NAAnnounce(self, six), etherBytes+ipv6Bytes+2, 0),
		"not ethernet arp":   mutate(ARPProbe(self, four), etherBytes+1, 6),
		"unknown operation":  mutate(ARPProbe(self, four), etherBytes+7, 9),
		"solicitation for":   ordinary,
		"option of no size":  fixed(mutate(NAAnnounce(self, six), etherBytes+ipv6Bytes+25, 0)),
		"reply from nowhere": mutate(ARPProbe(self, four), etherBytes+7, arpReply),
	}
	for name, b := range refuse {
		if c, ok := parse(b); ok {
			t.Errorf("%s is taken for a claim: %+v", name, c)
		}
	}
}

func mutate(b []byte, at int, v byte) []byte {
	b = bytes.Clone(b)
	b[at] = v
	return b
}

// fixed puts the checksum right again after a change to the body.
func fixed(b []byte) []byte {
	body := b[etherBytes+ipv6Bytes:]
	body[2], body[3] = 0, 0
	src := netip.AddrFrom16([16]byte(b[etherBytes+8:]))
	dst := netip.AddrFrom16([16]byte(b[etherBytes+24:]))
	sum := checksum6(src, dst, body)
	body[2], body[3] = byte(sum>>8), byte(sum)
	return b
}

func TestAnyAddressRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m MAC
		copy(m[:], rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
		a6 := netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "ip6")))
		a4 := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "ip4")))
		if a6.IsMulticast() || a6.IsUnspecified() || a4.IsUnspecified() {
			t.Skip("not an address a host can have")
		}
		for _, b := range [][]byte{ARPProbe(m, a4), ARPAnnounceReply(m, a4)} {
			if c, ok := ParseARP(b); !ok || c.Addr != a4 || c.MAC != m {
				t.Fatalf("ARP: %+v %v", c, ok)
			}
		}
		for _, b := range [][]byte{NSProbe(m, a6), NAAnnounce(m, a6)} {
			if c, ok := ParseND(b); !ok || c.Addr != a6 || c.MAC != m {
				t.Fatalf("ND: %+v %v", c, ok)
			}
		}
	})
}

func FuzzParseARP(f *testing.F) { fuzz(f, ParseARP) }
func FuzzParseND(f *testing.F)  { fuzz(f, ParseND) }

func fuzz(f *testing.F, parse func([]byte) (Claim, bool)) {
	for _, b := range frames() {
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := parse(b)
		if ok && (!c.Addr.IsValid() || c.Addr.IsUnspecified()) {
			t.Fatalf("a claim on nothing: %+v", c)
		}
		if !ok && c != (Claim{}) {
			t.Fatalf("refused, yet says %+v", c)
		}
	})
}
