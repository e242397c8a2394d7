package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Where the management boards of the nodes are, for fence_redfish and its like.
const (
	BoardsPort = 8443
	BoardsUser = "ha"
	// BoardsPasswordFile is the file of the password, on every node.
	BoardsPasswordFile = "/etc/hapair/cluster.psk"

	boardsRoot  = "/redfish/v1/Systems"
	boardsReset = "/Actions/ComputerSystem.Reset"
	boardsOff   = 20 * time.Second

	// States of power, and what is asked for.
	boardIsOn, boardIsOff = "On", "Off"
	boardOn, boardOff     = "On", "ForceOff"
)

// Boards are the management boards of the lab's nodes, see ServeBoards. They may be
// served inside a node, such as the client.
func (l *Lab) Boards() (http.Handler, error) {
	secret, err := os.ReadFile(filepath.Join(l.dir, l.Data()[0], "etc", filepath.Base(BoardsPasswordFile)))
	if err != nil {
		return nil, err
	}
	return Boards(outlets{l, boardsOff}, strings.TrimSpace(string(secret))), nil
}

// Boards speaks Redfish for the management boards of nodes, as far as is needed to see
// and to switch their power, to whoever knows the password.
func Boards(o Outlets, password string) http.Handler {
	b := boards{o}
	m := http.NewServeMux()
	m.HandleFunc("GET /redfish/v1", func(w http.ResponseWriter, _ *http.Request) { says(w, map[string]any{"Systems": link(boardsRoot)}) })
	m.HandleFunc("GET "+boardsRoot, b.all)
	m.HandleFunc("GET "+boardsRoot+"/{node}", b.power)
	m.HandleFunc("POST "+boardsRoot+"/{node}"+boardsReset, b.reset)
	return guarded(m, password)
}

// boards are the handlers of Boards.
type boards struct{ Outlets }

func link(to string) map[string]string { return map[string]string{"@odata.id": to} }

func says(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // whoever asked has gone
}

// guarded wants the user and the password.
func guarded(h http.Handler, secret string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != BoardsUser || subtle.ConstantTimeCompare([]byte(password), []byte(secret)) != 1 {
			http.Error(w, `{"error": {"message": "login denied"}}`, http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// failed answers that something failed: no such node, or what only code says.
func failed(w http.ResponseWriter, err error, code int) {
	if errors.Is(err, ErrNoNode) {
		code = http.StatusNotFound
	}
	http.Error(w, err.Error(), code)
}

// all lists the nodes.
func (b boards) all(w http.ResponseWriter, r *http.Request) {
	nodes, err := b.Nodes(r.Context())
	if err != nil {
		failed(w, err, http.StatusServiceUnavailable)
		return
	}
	var all []any
	for _, n := range nodes {
		all = append(all, link(boardsRoot+"/"+n))
	}
	says(w, map[string]any{"Members": all})
}

// power tells the power of a node.
func (b boards) power(w http.ResponseWriter, r *http.Request) {
	node := r.PathValue("node")
	on, err := b.Power(r.Context(), node)
	if err != nil {
		failed(w, err, http.StatusServiceUnavailable)
		return
	}
	state := map[bool]string{true: boardIsOn, false: boardIsOff}[on]
	says(w, map[string]any{"Id": node, "PowerState": state, "Actions": map[string]any{"#ComputerSystem.Reset": map[string]any{
		"target": boardsRoot + "/" + node + boardsReset, "ResetType@Redfish.AllowableValues": []string{boardOn, boardOff}}}})
}

// reset switches a node.
func (b boards) reset(w http.ResponseWriter, r *http.Request) {
	var asked struct{ ResetType string }
	err := json.NewDecoder(r.Body).Decode(&asked)
	do := map[string]func(context.Context, string) error{boardOn: b.On, boardOff: b.Off}[asked.ResetType]
	if err != nil || do == nil {
		http.Error(w, fmt.Sprintf("ResetType %q: only %s and %s; %v", asked.ResetType, boardOn, boardOff, err), http.StatusBadRequest)
		return
	}
	if err := do(r.Context(), r.PathValue("node")); err != nil {
		failed(w, err, http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// ServeBoards serves the boards over TLS, with a certificate of its own making, until
// ctx ends.
func (l *Lab) ServeBoards(ctx context.Context) error {
	h, err := l.Boards()
	if err != nil {
		return fmt.Errorf("lab: boards: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("lab: boards: %w", err)
	}
	plain := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"boards"}}
	cert, err := x509.CreateCertificate(rand.Reader, plain, plain, key.Public(), key)
	if err != nil {
		return fmt.Errorf("lab: boards: %w", err)
	}
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", BoardsPort))
	if err != nil {
		return fmt.Errorf("lab: boards: %w", err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // Serve says how it ended
	defer stop()
	if err := s.ServeTLS(listener, "", ""); ctx.Err() == nil {
		return fmt.Errorf("lab: boards: %w", err)
	}
	return nil
}
