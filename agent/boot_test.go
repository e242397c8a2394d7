package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"hapair/agent/config"
)

// A disk that comes late is waited for; one that does not come, no longer than ctx.
func TestDisksAreAwaited(t *testing.T) {
	dir := t.TempDir()
	there, late, never := filepath.Join(dir, "there"), filepath.Join(dir, "late"), filepath.Join(dir, "never")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	told := 0
	awaitPaths(t.Context(), []string{there, late}, func(missing []string) {
		told++
		if !slices.Equal(missing, []string{late}) {
			t.Errorf("told of %q", missing)
		}
		if err := os.WriteFile(late, nil, 0o600); err != nil {
			t.Error(err)
		}
	})
	awaitPaths(t.Context(), []string{there, late}, func([]string) { told++ })
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	awaitPaths(ctx, []string{never}, func([]string) { told++ })
	if told != 2 || ctx.Err() == nil {
		t.Errorf("told %d times, %v", told, ctx.Err())
	}
}

// Only devices of this node are, and only while the machine boots.
func TestWhichDisksAreAwaited(t *testing.T) {
	c, err := config.Load("systemd/hapair.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.Resources[0].Volumes = append(c.Resources[0].Volumes, config.Volume{
		Disk:     config.PerNode{ByNode: map[string]string{"alpha": "/dev/sdb", "beta": "/dev/sdc"}},
		Metadata: config.PerNode{All: "/var/lib/metadata.img"},
	})
	a := &agent{cfg: c, self: "beta", clock: func() time.Duration { return bootPatience }}
	if got := a.disks(); !slices.Equal(got, []string{"/dev/vg0/pg", "/dev/sdc"}) {
		t.Errorf("%q", got)
	}
	a.awaitDisks(t.Context()) // long booted: nothing is looked at, and nobody told
}
