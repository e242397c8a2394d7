package frame

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// ParseMAC reads the spelling of String: six pairs of hexadecimal digits with
// colons between them.
func ParseMAC(s string) (m MAC, err error) {
	pairs := strings.Split(s, ":")
	if len(pairs) != len(m) {
		return MAC{}, fmt.Errorf("%q is not a MAC, such as 02:48:41:00:00:01", s)
	}
	for i, pair := range pairs {
		b, err := hex.DecodeString(pair)
		if err != nil || len(b) != 1 {
			return MAC{}, fmt.Errorf("%q is not a MAC, such as 02:48:41:00:00:01", s)
		}
		m[i] = b[0]
	}
	return m, nil
}

// IsZero reports whether m is none.
func (m MAC) IsZero() bool { return m == MAC{} }

// MarshalText writes the spelling of String; none is empty.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText is ParseMAC; an empty text is none.
func (m *MAC) UnmarshalText(b []byte) (err error) {
	*m = MAC{}
	if len(b) > 0 {
		*m, err = ParseMAC(string(b))
	}
	return err
}

// Stations refuses what no station may have for its own: a group, none, and
// what belongs to the routers of VRRP (RFC 9568, 7.3), one of which may be on the
// same network with the same number.
func (m MAC) Stations() error {
	switch {
	case m.IsZero():
		return fmt.Errorf("%s is no station's MAC", m)
	case m[0]&1 != 0:
		return fmt.Errorf("%s is the MAC of a group, not of a station: the first byte must be even", m)
	case [4]byte(m[:4]) == [4]byte{0, 0, 0x5e, 0} && (m[4] == 1 || m[4] == 2):
		return fmt.Errorf("%s belongs to virtual router %d of VRRP: one on the same network would have it as well", m, m[5])
	}
	return nil
}
