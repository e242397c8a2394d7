package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/mirror/block"
	"hapair/mirror/meta"
	"hapair/mirror/store"
	"hapair/test/fault"
)

// copyAt makes a file a copy of a resource.
func copyAt(t *testing.T, a *agent, path, resource string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	d, err := store.Open(path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = meta.Create(d, meta.CreateParams{Placement: meta.Internal, Cluster: a.cfg.Cluster, Resource: resource, Node: a.self, Peer: "beta"})
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
}

// hangingDisk has a disk answer nothing when it is opened; it is what comes through the channel.
func hangingDisk(t *testing.T, path string) <-chan *fault.Disk {
	t.Helper()
	was, hang := wrapDisk, make(chan *fault.Disk, 1)
	wrapDisk = func(p string, d block.Disk) block.Disk {
		if p != path {
			return d
		}
		f := fault.New(d)
		f.Add(fault.Rule{Hang: true})
		hang <- f
		return f
	}
	t.Cleanup(func() { wrapDisk = was })
	return hang
}

// One disk hangs when the agent starts: the resource of another is attached, the
// services of the one are stopped, and the status says what to do. When it answers it is told.
func TestOneDiskHangsAtTheStart(t *testing.T) {
	a, runs, disk := crashed(t)
	other := filepath.Join(filepath.Dir(disk), "other")
	www := a.cfg.Resources[0]
	www.Name, www.Services, www.Volumes = "www", nil, []config.Volume{{Disk: config.PerNode{All: other}, Metadata: config.PerNode{All: config.Internal}}}
	a.cfg.Resources = append(a.cfg.Resources, www)
	copyAt(t, a, disk, "pg")
	copyAt(t, a, other, "www")
	hang := hangingDisk(t, disk)
	a.openWithin = 3 * time.Second // enough for www
	a.openResources(t.Context())
	if len(a.order) != 1 || a.order[0].name != "www" || a.res["www"] == nil {
		t.Fatalf("attached: %v, not: %v", a.order, a.broken)
	}
	if len(a.broken) != 1 || a.broken[0].name != "pg" || !errors.Is(a.broken[0].err, block.ErrNoAnswer) {
		t.Fatalf("not attached: %v", a.broken)
	}
	if text := a.brokenStatus(a.broken[0]).Because; !strings.Contains(text, disk) || !strings.Contains(text, "not within 3s") || !strings.Contains(text, "systemctl restart hapair") {
		t.Errorf("the status says %q", text)
	}
	if remains(t, runs) {
		t.Error("the service runs on without its resource")
	}
	answers(t, a, <-hang)
	if err := a.stop(); err != nil {
		t.Error(err)
	}
}

// answers has a disk answer what hung, and waits until that is told.
func answers(t *testing.T, a *agent, hang *fault.Disk) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	news := a.hub.Subscribe(a.hub.Seq())
	defer news.Close()
	hang.Clear()
	hang.Release()
	for {
		select {
		case e := <-news.C:
			if e.Kind == apiv1.EventProblem && e.Resource == "pg" && strings.Contains(e.Text, "have answered") {
				return
			}
		case <-ctx.Done():
			t.Fatal("nobody is told that the disk answers")
		}
	}
}
