package peering

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// secured is a stream whose other end has been, or is just being, proven to be
// of the cluster: it carries one blob each way, hello and answer. No byte of a
// blob is parsed before the proof.
type secured struct {
	net.Conn
	peer string // node name in the certificate; "" in mode PSK, where the key is everybody's

	// mode PSK: how to prove and to check.
	key          []byte
	mine, theirs string // labels, so that no proof can be sent back as one's own
	nonces       []byte // of the dialing and of the accepting node
}

// The preamble of mode PSK: magic, then a nonce, each way.
const (
	pskMagic   = "HAPK\x01"
	nonceBytes = 32
	// KeyBytes is the length of the shared key.
	KeyBytes = 32
)

// secureTLS runs the TLS handshake on conn. want is the node dialed; "" on the
// accepting side.
func (n *Net) secureTLS(ctx context.Context, conn net.Conn, want string) (*secured, error) {
	cfg := n.cfg.Material.config()
	var t *tls.Conn
	if want != "" {
		cfg.ServerName = certName(n.cfg.Cluster, want)
		t = tls.Client(conn, cfg)
	} else {
		t = tls.Server(conn, cfg)
	}
	if err := t.HandshakeContext(ctx); err != nil {
		var record tls.RecordHeaderError
		if errors.As(err, &record) {
			return nil, fmt.Errorf("TLS handshake: peer started with %x (mode psk there?): %w: %w", record.RecordHeader, err, ErrProtocol)
		}
		return nil, fmt.Errorf("TLS handshake: %w: %w", err, ErrAuthentication)
	}
	peer := want
	if want == "" {
		var err error
		if peer, err = certNode(n.cfg.Cluster, t.ConnectionState().PeerCertificates[0]); err != nil {
			return nil, fmt.Errorf("%w: %w", err, ErrAuthentication)
		}
	}
	return &secured{Conn: t, peer: peer}, nil
}

// securePSK exchanges nonces on conn. The proofs go with the blobs.
func (n *Net) securePSK(conn net.Conn, dialing bool) (*secured, error) {
	var own, peer [len(pskMagic) + nonceBytes]byte
	copy(own[:], pskMagic)
	if _, err := rand.Read(own[len(pskMagic):]); err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	send := func() error { _, err := conn.Write(own[:]); return err }
	if dialing {
		if err := send(); err != nil {
			return nil, fmt.Errorf("send nonce: %w", err)
		}
	}
	if _, err := io.ReadFull(conn, peer[:]); err != nil {
		return nil, fmt.Errorf("read nonce: %w", err)
	}
	if string(peer[:len(pskMagic)]) != pskMagic {
		return nil, fmt.Errorf("peer started with %x, expected %x (mode tls there?): %w", peer[:len(pskMagic)], pskMagic, ErrProtocol)
	}
	s := &secured{Conn: conn, key: n.cfg.Key}
	if dialing {
		s.mine, s.theirs = "hapair dialing", "hapair accepting"
		s.nonces = append(own[len(pskMagic):], peer[len(pskMagic):]...)
		return s, nil
	}
	s.mine, s.theirs = "hapair accepting", "hapair dialing"
	s.nonces = append(peer[len(pskMagic):len(peer):len(peer)], own[len(pskMagic):]...)
	return s, send()
}

func (s *secured) proof(label string, blob []byte) []byte {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(label)) // hash.Hash never fails
	mac.Write(s.nonces)
	mac.Write(blob)
	return mac.Sum(nil)
}

// send writes a blob: 2 bytes of length, the blob, and in mode PSK its proof,
// which covers both nonces and, being in the blob, cluster, nodes and purpose.
func (s *secured) send(blob []byte) error {
	if len(blob) > MaxHelloBytes {
		return fmt.Errorf("%d bytes, limit %d: %w", len(blob), MaxHelloBytes, ErrProtocol)
	}
	out := append(binary.LittleEndian.AppendUint16(nil, uint16(len(blob))), blob...)
	if s.key != nil {
		out = append(out, s.proof(s.mine, blob)...)
	}
	_, err := s.Write(out)
	return err
}

// receive reads a blob and, in mode PSK, judges its proof.
func (s *secured) receive() ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(s, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.LittleEndian.Uint16(size[:]))
	if n > MaxHelloBytes {
		return nil, fmt.Errorf("%d bytes, limit %d: %w", n, MaxHelloBytes, ErrProtocol)
	}
	rest := n
	if s.key != nil {
		rest += sha256.Size
	}
	b := make([]byte, rest)
	if _, err := io.ReadFull(s, b); err != nil {
		return nil, err
	}
	if s.key != nil && !hmac.Equal(b[n:], s.proof(s.theirs, b[:n])) {
		return nil, fmt.Errorf("the proof does not match, the keys of the two nodes differ: %w", ErrAuthentication)
	}
	return b[:n], nil
}
