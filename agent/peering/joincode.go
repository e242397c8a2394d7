package peering

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strings"
)

// ErrJoinCode is wrapped by every complaint about the text of a join code.
var ErrJoinCode = errors.New("not a valid join code")

// Lengths of the parts of a join code.
const (
	FingerprintBytes = 16 // of the SHA-256 of the certificate; enough against a second preimage
	SecretBytes      = 10
	joinCodeVersion  = 1
	joinPrefix       = "hapair1"
	maxJoinHost      = 64
	maxJoinText      = 256
	joinSumBytes     = 3
)

// JoinCode is all a new node needs to join: whom to ask, how to know it is the
// right one, and what to say. Its text is short enough to be read out.
type JoinCode struct {
	Address     string // host:port
	Fingerprint [FingerprintBytes]byte
	Secret      [SecretBytes]byte
}

// crockford is base32 without I, L, O and U.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// String returns the text: "hapair1" and lower-case base32 (Crockford's) of
// version, address, fingerprint, secret and checksum.
func (c JoinCode) String() string {
	b := []byte{joinCodeVersion}
	if ap, err := netip.ParseAddrPort(c.Address); err == nil && ap.Addr().Zone() == "" {
		ip := ap.Addr().AsSlice()
		b = append(append(b, byte(len(ip))), ip...)
		b = binary.BigEndian.AppendUint16(b, ap.Port())
	} else {
		b = append(append(b, byte(0x80|len(c.Address)&0x7f)), c.Address...)
	}
	b = append(append(b, c.Fingerprint[:]...), c.Secret[:]...)
	return joinPrefix + crockford.EncodeToString(append(b, joinSum(b)...))
}

func joinSum(b []byte) []byte {
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return binary.BigEndian.AppendUint32(nil, sum)[4-joinSumBytes:]
}

// ParseJoinCode reads the text of a join code. Case, spaces, dashes and line
// breaks do not matter, and the letters that look like digits count as those.
// An error wraps ErrJoinCode.
func ParseJoinCode(text string) (JoinCode, error) {
	var c JoinCode
	if len(text) > maxJoinText {
		return c, fmt.Errorf("%d characters, limit %d: %w", len(text), maxJoinText, ErrJoinCode)
	}
	clean := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -\t\r\n", r) {
			return -1
		}
		return r
	}, strings.ToLower(text))
	body, ok := strings.CutPrefix(clean, joinPrefix)
	if !ok {
		return c, fmt.Errorf("starts with %.10q, must start with %q: %w", clean, joinPrefix, ErrJoinCode)
	}
	body = strings.NewReplacer("o", "0", "i", "1", "l", "1").Replace(body)
	b, err := crockford.DecodeString(body)
	if err != nil {
		return c, fmt.Errorf("a character that no join code has (%w): %w", err, ErrJoinCode)
	}
	n := len(b) - joinSumBytes
	// The last character has bits that belong to no byte: they must be as written.
	if n < 0 || !bytes.Equal(joinSum(b[:n]), b[n:]) || crockford.EncodeToString(b) != body {
		return c, fmt.Errorf("checksum does not match, a character is wrong or missing: %w", ErrJoinCode)
	}
	return parseJoinBody(b[:n])
}

func parseJoinBody(b []byte) (c JoinCode, err error) {
	if len(b) < 2 || b[0] != joinCodeVersion {
		return c, fmt.Errorf("unknown version, this release reads %d: %w", joinCodeVersion, ErrJoinCode)
	}
	kind, rest := b[1], b[2:]
	n := int(kind & 0x7f)
	tail := FingerprintBytes + SecretBytes
	switch {
	case kind&0x80 != 0:
		if n == 0 || n > maxJoinHost || len(rest) != n+tail {
			return c, fmt.Errorf("%d bytes after an address of %d: %w", len(rest), n, ErrJoinCode)
		}
		c.Address = string(rest[:n])
	default:
		ip, ok := netip.AddrFromSlice(rest[:min(n, len(rest))])
		if !ok || len(rest) != n+2+tail {
			return c, fmt.Errorf("%d bytes after an address of %d: %w", len(rest), n, ErrJoinCode)
		}
		c.Address = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(rest[n:])).String()
		n += 2
	}
	if _, err := endpoint(c.Address); err != nil {
		return c, fmt.Errorf("%w: %w", err, ErrJoinCode)
	}
	copy(c.Fingerprint[:], rest[n:])
	copy(c.Secret[:], rest[n+FingerprintBytes:])
	return c, nil
}
