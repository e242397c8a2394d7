package export_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hapair/mirror/front/export"
)

func TestEarlierSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	m := memory(t, 1<<20)
	e := export.New(export.Config{Socket: path})
	if _, err := e.Start(context.Background(), m, m.Geometry()); err == nil || !strings.Contains(err.Error(), "another process serves") {
		t.Fatalf("started beside a living server: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Start(context.Background(), m, m.Geometry()); err != nil {
		t.Fatalf("a dead server's socket is in the way: %v", err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", st.Mode(), err)
	}
	if err := e.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Start(context.Background(), m, m.Geometry()); err == nil {
		t.Error("replaced a file that is no socket")
	}
}
