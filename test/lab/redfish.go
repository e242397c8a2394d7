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
)

// Boards speaks Redfish for the management boards of the lab's nodes, as far as is
// needed to see and to switch their power; on is for the lab itself. It may be served
// inside a node, such as the client.
func (l *Lab) Boards() (http.Handler, error) {
	secret, err := os.ReadFile(filepath.Join(l.dir, l.Data()[0], "etc", filepath.Base(BoardsPasswordFile)))
	if err != nil {
		return nil, err
	}
	m := http.NewServeMux()
	m.HandleFunc("GET /redfish/v1", func(w http.ResponseWriter, _ *http.Request) { says(w, map[string]any{"Systems": link(boardsRoot)}) })
	m.HandleFunc("GET "+boardsRoot, func(w http.ResponseWriter, _ *http.Request) {
		var all []any
		for _, n := range l.Data() {
			all = append(all, link(boardsRoot+"/"+n))
		}
		says(w, map[string]any{"Members": all})
	})
	m.HandleFunc("GET "+boardsRoot+"/{node}", l.board)
	m.HandleFunc("POST "+boardsRoot+"/{node}"+boardsReset, l.boardReset)
	return guarded(m, strings.TrimSpace(string(secret))), nil
}

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

// board tells the power of a node.
func (l *Lab) board(w http.ResponseWriter, r *http.Request) {
	node := r.PathValue("node")
	if _, err := l.node(node); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	power, err := powerOf(filepath.Join(l.dir, node))
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	state := map[string]string{powerOn: "On", powerOff: "Off"}[power]
	says(w, map[string]any{"Id": node, "PowerState": state, "Actions": map[string]any{"#ComputerSystem.Reset": map[string]any{
		"target": boardsRoot + "/" + node + boardsReset, "ResetType@Redfish.AllowableValues": []string{"ForceOff"}}}})
}

// boardReset switches a node off.
func (l *Lab) boardReset(w http.ResponseWriter, r *http.Request) {
	node := r.PathValue("node")
	if _, err := l.node(node); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	var asked struct{ ResetType string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.ResetType != "ForceOff" {
		http.Error(w, fmt.Sprintf("ResetType %q: only ForceOff; %v", asked.ResetType, err), http.StatusBadRequest)
		return
	}
	if err := switchOff(r.Context(), filepath.Join(l.dir, node), boardsOff); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
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
