package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"hapair/agent/api"
	"hapair/agent/config"
	"hapair/agent/systemd"
	"hapair/failover/ledger"
	"hapair/failover/service"
	"hapair/mirror/meta"
)

// nowhere reaches nobody.
type nowhere struct{}

func (nowhere) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("no such node")
}

func (nowhere) Handle(string, func(string, net.Conn)) {}

// crashed is an agent that starts again where an earlier life has left a service
// running: as long as the returned file is there. The disk is at the returned path.
func crashed(t *testing.T) (a *agent, runs, disk string) {
	t.Helper()
	dir := t.TempDir()
	runs, disk = filepath.Join(dir, "runs"), filepath.Join(dir, "disk")
	if err := os.WriteFile(runs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load("systemd/hapair.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.StateDir, c.RunDir, c.DeviceDir = filepath.Join(dir, "state"), filepath.Join(dir, "run"), filepath.Join(dir, "dev")
	rc := &c.Resources[0]
	rc.Frontend, rc.Volumes[0].Disk = "export", config.PerNode{All: disk}
	rc.Services = []config.Service{
		{Mount: &config.MountService{Path: filepath.Join(dir, "mnt")}},
		{Name: "web", Exec: &config.ExecService{Start: service.Shell("exit 1"), Stop: service.Shell("rm -f " + runs), Status: service.Shell("test -e " + runs)}},
	}
	began := time.Now()
	a = &agent{cfg: c, self: "alpha", log: zap.NewNop(), clock: func() time.Duration { return time.Since(began) + time.Minute },
		boss: systemd.New(zap.NewNop()), hub: api.NewHub("alpha", time.Now), res: map[string]*resource{}}
	a.ledger, err = ledger.Open(ledger.Config{Self: "alpha", Dir: filepath.Join(dir, "ledger"), Clock: a.clock, Streams: nowhere{},
		Arbitration: ledger.ArbitrationWitness, Voters: []ledger.Voter{{Node: "alpha"}, {Node: "beta"}, {Node: "gamma", Witness: true}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	return a, runs, disk
}

func remains(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// The agent crashed, and the disk is gone when it starts again: what its earlier life
// has left running is stopped. The peer has it already.
func TestServicesOfAnEarlierLifeWithoutADisk(t *testing.T) {
	a, runs, _ := crashed(t)
	a.openResources(t.Context())
	if len(a.broken) != 1 || len(a.order) != 0 || !errors.Is(a.broken[0].err, os.ErrNotExist) {
		t.Fatalf("opened without a disk: %v", a.broken)
	}
	if remains(t, runs) {
		t.Error("the service runs on without device and lease")
	}
	if p := a.problems.last("pg", false); p == nil || !strings.Contains(p.Text, "not attached") {
		t.Errorf("told %+v", p)
	}
}

// A disk that was never made a copy, of a resource that was never declared: what runs
// is not of an earlier life. The new pair may be built below it.
func TestServicesOnADiskThatIsNoCopyYet(t *testing.T) {
	a, runs, disk := crashed(t)
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 64<<20); err != nil {
		t.Fatal(err)
	}
	a.openResources(t.Context())
	if len(a.broken) != 1 || !errors.Is(a.broken[0].err, meta.ErrNone) {
		t.Fatalf("%v", a.broken)
	}
	if !remains(t, runs) {
		t.Error("the service was stopped")
	}
	if err := a.ledger.ForceAlone(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ledger.Declare(t.Context(), "pg", []string{"alpha", "beta"}, 0); err != nil {
		t.Fatal(err)
	}
	a.openResources(t.Context()) // another disk is in its place
	if remains(t, runs) {
		t.Error("the service of a resource that was declared runs on")
	}
}
