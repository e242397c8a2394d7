package peering

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"hapair/kernel/secret"
)

// certSuffix ends the DNS name in every certificate of a node:
// <node>.<cluster>.hapair.
const certSuffix = ".hapair"

func certName(cluster, node string) string { return node + "." + cluster + certSuffix }

// certNode returns the node a certificate was issued to.
func certNode(cluster string, cert *x509.Certificate) (string, error) {
	for _, name := range cert.DNSNames {
		if node, ok := strings.CutSuffix(name, "."+cluster+certSuffix); ok && checkName("node", node) == nil {
			return node, nil
		}
	}
	return "", fmt.Errorf("certificate for %.200q, must be for <node>.%s%s", cert.DNSNames, cluster, certSuffix)
}

// Certificates made here are valid from 1970 to 9999 (RFC 5280's "no
// well-defined expiration"): a pair must come up with a dead clock battery and
// must not die of a date. A node is shut out by taking it out of the
// configuration.
var (
	validFrom  = time.Unix(0, 0).UTC()
	validUntil = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// Pair is a certificate and its private key, both PEM.
type Pair struct {
	Cert []byte `json:"cert"`
	Key  []byte `json:"key"`
}

// CreateCA makes the authority of a new cluster.
func CreateCA(cluster string) (Pair, error) {
	if err := checkName("cluster", cluster); err != nil {
		return Pair{}, err
	}
	t := template("hapair cluster " + cluster)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign
	return sign(t, nil, nil)
}

// IssueNode makes the certificate of one node of the cluster.
func IssueNode(ca Pair, cluster, node string) (Pair, error) {
	if err := checkName("cluster", cluster); err != nil {
		return Pair{}, err
	}
	if err := checkName("node", node); err != nil {
		return Pair{}, err
	}
	pair, err := tls.X509KeyPair(ca.Cert, ca.Key)
	if err != nil {
		return Pair{}, fmt.Errorf("peering: certificate authority: %w", err)
	}
	t := template("hapair node " + node)
	t.DNSNames = []string{certName(cluster, node)}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return sign(t, pair.Leaf, pair.PrivateKey)
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name[:min(len(name), 64)]}, NotBefore: validFrom, NotAfter: validUntil}
}

// sign makes a key and a certificate for it; parent nil means self-signed.
func sign(t, parent *x509.Certificate, signer crypto.PrivateKey) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("peering: make a key: %w", err)
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return Pair{}, fmt.Errorf("peering: serial number: %w", err)
	}
	if parent == nil {
		parent, signer = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	if err != nil {
		return Pair{}, fmt.Errorf("peering: sign %q: %w", t.Subject.CommonName, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("peering: encode a key: %w", err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}, nil
}

// Material is what a node needs for mode TLS.
type Material struct {
	authority *x509.CertPool
	own       tls.Certificate
}

// NewMaterial reads the authority's certificate (PEM) and the node's pair.
func NewMaterial(ca []byte, node Pair) (*Material, error) {
	m := &Material{authority: x509.NewCertPool()}
	if !m.authority.AppendCertsFromPEM(ca) {
		return nil, errors.New("peering: no certificate in the PEM text of the authority")
	}
	var err error
	if m.own, err = tls.X509KeyPair(node.Cert, node.Key); err != nil {
		return nil, fmt.Errorf("peering: certificate of this node: %w", err)
	}
	return m, nil
}

// LoadMaterial is NewMaterial on files. The key's must be root's alone.
func LoadMaterial(caFile, certFile, keyFile string) (*Material, error) {
	ca, err := readBounded(caFile, false)
	if err != nil {
		return nil, err
	}
	cert, err := readBounded(certFile, false)
	if err != nil {
		return nil, err
	}
	key, err := readBounded(keyFile, true)
	if err != nil {
		return nil, err
	}
	return NewMaterial(ca, Pair{Cert: cert, Key: key})
}

// check wants the certificate to be this node's and the authority's.
func (m *Material) check(cluster, node string) error {
	if _, err := m.own.Leaf.Verify(x509.VerifyOptions{
		DNSName: certName(cluster, node), Roots: m.authority,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return fmt.Errorf("peering: the certificate of node %s of cluster %s: %w", node, cluster, err)
	}
	return nil
}

func (m *Material) config() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{m.own},
		RootCAs:                m.authority,
		ClientCAs:              m.authority,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true, // every stream proves itself anew
		NextProtos:             []string{"hapair-peering"},
	}
}

// NewKey makes a shared key for mode PSK.
func NewKey() ([]byte, error) {
	key := make([]byte, KeyBytes)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("peering: make a key: %w", err)
	}
	return key, nil
}

// FormatKey returns the text of a key file.
func FormatKey(key []byte) []byte { return []byte(hex.EncodeToString(key) + "\n") }

// LoadKey reads a shared key: one line of 64 hexadecimal digits, in a file that
// belongs to root (or whoever runs this) and that nobody else may read.
func LoadKey(file string) ([]byte, error) {
	text, err := readBounded(file, true)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != KeyBytes {
		return nil, fmt.Errorf("peering: key file %s: must be one line of %d hexadecimal digits, has %d characters", file, 2*KeyBytes, len(text))
	}
	return key, nil
}

// maxFileBytes bounds key and certificate files.
const maxFileBytes = 64 << 10

func readBounded(file string, private bool) ([]byte, error) {
	read := secret.Public
	if private {
		read = secret.Read
	}
	b, err := read(file, maxFileBytes)
	if err != nil {
		return nil, fmt.Errorf("peering: %w", err)
	}
	return b, nil
}
