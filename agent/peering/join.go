package peering

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Why a node could not join. Match them with errors.Is.
var (
	ErrJoinRefused = errors.New("join was refused")
	ErrJoinPin     = errors.New("reached another node than the one that made the join code")
	ErrJoinExpired = errors.New("join code has expired")
	ErrJoinSpent   = errors.New("join code has been used")
)

// Bounds of the exchange.
const (
	MaxBundleBytes  = 1 << 20
	maxJoinAttempts = 10 // wrong secrets before the code is void
	maxJoinGuests   = 8
	joinTimeout     = 10 * time.Second
	joinMagic       = "HAPJ\x01"
)

// Bundle is what a new node fetches.
type Bundle struct {
	Config  []byte            `json:"config"`            // hapair.yaml
	CA      []byte            `json:"ca,omitempty"`      // PEM, mode TLS
	Node    Pair              `json:"node,omitempty"`    // of the new node, mode TLS
	Key     []byte            `json:"key,omitempty"`     // mode PSK
	Secrets map[string][]byte `json:"secrets,omitempty"` // others, by file name
}

// JoinOffer waits for one node to come with the code and hands it a Bundle.
type JoinOffer struct {
	Code JoinCode

	listener net.Listener
	config   *tls.Config
	expiry   time.Time // by the monotonic clock of this process
	bundle   func(node string) (Bundle, error)
	log      *zap.Logger

	mu struct {
		sync.Mutex
		attempts int
		busy     bool // the secret is being redeemed
		spent    bool
	}
}

// NewJoinOffer makes a code for listener, where the new node will come; address
// is how it reaches it, host:port. bundle is asked for a node's Bundle, and
// refuses names that are not to join. The code ends after valid, with the first
// node that got its Bundle, or after ten wrong secrets.
func NewJoinOffer(listener net.Listener, address string, valid time.Duration, bundle func(node string) (Bundle, error), log *zap.Logger) (*JoinOffer, error) {
	address, err := endpoint(address)
	if err != nil || len(address) > maxJoinHost {
		return nil, fmt.Errorf("peering: join address %.80q, must be host:port of at most %d characters: %w", address, maxJoinHost, errors.Join(err, ErrJoinCode))
	}
	pair, err := sign(template("hapair join"), nil, nil)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("peering: join certificate: %w", err)
	}
	o := &JoinOffer{listener: listener, expiry: time.Now().Add(valid), bundle: bundle, log: log, Code: JoinCode{Address: address}}
	o.config = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true}
	o.Code.Fingerprint = fingerprint(cert.Leaf)
	if _, err := rand.Read(o.Code.Secret[:]); err != nil {
		return nil, fmt.Errorf("peering: join secret: %w", err)
	}
	return o, nil
}

func fingerprint(cert *x509.Certificate) (f [FingerprintBytes]byte) {
	sum := sha256.Sum256(cert.Raw)
	copy(f[:], sum[:])
	return f
}

// Serve answers until a node has its Bundle (it returns the node's name), the
// code has expired (ErrJoinExpired), is void (ErrJoinSpent), or ctx ends. It
// closes the listener.
func (o *JoinOffer) Serve(ctx context.Context) (node string, err error) {
	ctx, cancel := context.WithDeadlineCause(ctx, o.expiry, ErrJoinExpired)
	defer cancel()
	ctx, finish := context.WithCancelCause(ctx)
	defer finish(nil) // the first cause stays
	stop := context.AfterFunc(ctx, func() { closeListener(o.listener, o.log) })
	defer stop()
	var guests sync.WaitGroup
	var joined string
	slots := make(chan struct{}, maxJoinGuests)
	for {
		conn, err := o.listener.Accept()
		if err != nil {
			if ctx.Err() == nil {
				finish(fmt.Errorf("peering: accept a joining node: %w", err))
			}
			break
		}
		slots <- struct{}{}
		guests.Go(func() {
			defer func() { <-slots }()
			name, err := o.answer(ctx, conn)
			switch {
			case err == nil:
				joined = name // only one can: the secret is redeemed once
				finish(nil)
			case errors.Is(err, ErrJoinSpent):
				finish(err)
			}
			if err != nil {
				o.log.Warn("join refused", zap.Stringer("from", conn.RemoteAddr()), zap.Error(err))
			}
		})
	}
	guests.Wait()
	if joined != "" {
		return joined, nil
	}
	return "", context.Cause(ctx)
}

func closeListener(l net.Listener, log *zap.Logger) {
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		log.Warn("closing the join listener failed", zap.Error(err))
	}
}

// answer serves one guest. The request is magic, secret and node name; the
// reply one byte, 0 for yes, 4 bytes of length, and Bundle or a sentence.
func (o *JoinOffer) answer(ctx context.Context, conn net.Conn) (string, error) {
	defer closeConn(conn, o.log)
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if _, err := bounded(ctx, conn); err != nil {
		return "", err
	}
	t := tls.Server(conn, o.config)
	if err := t.HandshakeContext(ctx); err != nil {
		return "", fmt.Errorf("TLS handshake: %w", err)
	}
	var request [len(joinMagic) + SecretBytes + 1]byte
	if _, err := io.ReadFull(t, request[:]); err != nil {
		return "", fmt.Errorf("read request: %w", err)
	}
	name := make([]byte, min(int(request[len(request)-1]), MaxNameBytes+1))
	if _, err := io.ReadFull(t, name); err != nil {
		return "", fmt.Errorf("read request: %w", err)
	}
	node := string(name)
	refusal := o.redeem(string(request[:len(joinMagic)]), request[len(joinMagic):len(request)-1], node)
	if refusal != nil {
		return "", errors.Join(refusal, reply(t, 1, []byte(refusal.Error())))
	}
	body, err := o.pack(node)
	if err != nil {
		o.redeemed(false) // before the guest hears of it, who may try again at once
		return node, errors.Join(err, reply(t, 1, []byte(err.Error())))
	}
	err = reply(t, 0, body)
	o.redeemed(err == nil)
	return node, err
}

// redeemed ends what redeem began.
func (o *JoinOffer) redeemed(spent bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.busy, o.mu.spent = false, spent
}

// redeem judges a request, and on success takes the secret until it is either
// spent or put back.
func (o *JoinOffer) redeem(magic string, secret []byte, node string) error {
	if magic != joinMagic {
		return fmt.Errorf("request starts with %x, expected %x: %w", magic, joinMagic, ErrProtocol)
	}
	if err := checkName("node", node); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.mu.spent:
		return ErrJoinSpent
	case subtle.ConstantTimeCompare(secret, o.Code.Secret[:]) != 1:
		o.mu.attempts++
		if o.mu.attempts >= maxJoinAttempts {
			o.mu.spent = true
			return fmt.Errorf("%d wrong secrets, the code is void: %w", o.mu.attempts, ErrJoinSpent)
		}
		return fmt.Errorf("wrong secret: %w", ErrJoinRefused)
	case o.mu.busy:
		return fmt.Errorf("another node is just joining with this code: %w", ErrJoinRefused)
	}
	o.mu.busy = true
	return nil
}

func (o *JoinOffer) pack(node string) ([]byte, error) {
	bundle, err := o.bundle(node)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node, err)
	}
	body, err := json.Marshal(bundle)
	if err != nil {
		return nil, fmt.Errorf("encode bundle: %w", err)
	}
	if len(body) > MaxBundleBytes {
		return nil, fmt.Errorf("bundle of %d bytes, limit %d: %w", len(body), MaxBundleBytes, ErrJoinRefused)
	}
	return body, nil
}

func reply(w io.Writer, code byte, body []byte) error {
	out := binary.BigEndian.AppendUint32([]byte{code}, uint32(len(body)))
	_, err := w.Write(append(out, body...))
	return err
}

// Join fetches this node's Bundle with a code. An error wraps ErrJoinPin when
// the code was made by another node than the one reached, ErrJoinRefused with
// the other side's sentence when it said no.
func Join(ctx context.Context, code JoinCode, node string) (Bundle, error) {
	var b Bundle
	if err := checkName("node", node); err != nil {
		return b, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The code pins the very certificate; there is no authority to ask yet.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			got := fingerprint(s.PeerCertificates[0])
			if subtle.ConstantTimeCompare(got[:], code.Fingerprint[:]) != 1 {
				return fmt.Errorf("fingerprint %x, the code wants %x: %w", got, code.Fingerprint, ErrJoinPin)
			}
			return nil
		},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", code.Address)
	if err != nil {
		return b, fmt.Errorf("peering: join through %s: %w", code.Address, err)
	}
	defer conn.Close() //nolint:errcheck // the answer has been read or the error is at hand
	body, err := requestBundle(ctx, conn, code, node)
	if err != nil {
		return b, fmt.Errorf("peering: join through %s as node %s: %w", code.Address, node, err)
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return b, fmt.Errorf("peering: join through %s: bundle of %d bytes: %w", code.Address, len(body), err)
	}
	return b, nil
}

func requestBundle(ctx context.Context, conn net.Conn, code JoinCode, node string) ([]byte, error) {
	if _, err := bounded(ctx, conn); err != nil {
		return nil, err
	}
	request := append(append([]byte(joinMagic), code.Secret[:]...), byte(len(node)))
	if _, err := conn.Write(append(request, node...)); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	var head [5]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > MaxBundleBytes {
		return nil, fmt.Errorf("answer of %d bytes, limit %d: %w", size, MaxBundleBytes, ErrProtocol)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if head[0] != 0 {
		return nil, fmt.Errorf("%w: %.512q", ErrJoinRefused, body)
	}
	return body, nil
}
