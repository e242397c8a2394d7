package main

import (
	"context"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
)

// bootPatience is until when after the boot of the machine a disk that is not
// there yet is waited for: volume groups, multipath and iSCSI come up beside the
// agent, in no order.
const bootPatience = 90 * time.Second

const diskLookEvery = 100 * time.Millisecond

// awaitDisks waits for the disks of this node while the machine boots. What is not
// there afterwards is told by who needs it.
func (a *agent) awaitDisks(ctx context.Context) { a.awaitDevices(ctx, a.disks()) }

// awaitDevices waits for devices likewise.
func (a *agent) awaitDevices(ctx context.Context, paths []string) {
	left := bootPatience - a.clock()
	if left <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	awaitPaths(ctx, paths, func(missing []string) {
		what := strings.Join(missing, ", ")
		a.log.Info("the machine boots, and devices are waited for", zap.Strings("missing", missing), zap.Duration("at most", left))
		a.stage("starting: waiting for "+what, left)
	})
}

// disks are the paths that the volumes of this node are kept on.
func (a *agent) disks() (paths []string) {
	for i := range a.cfg.Resources {
		for _, v := range a.cfg.Resources[i].Volumes {
			for _, path := range []string{v.Disk.For(a.self), v.Metadata.For(a.self)} {
				if strings.HasPrefix(path, "/dev/") { // a file is there or is not
					paths = append(paths, path)
				}
			}
		}
	}
	return paths
}

// awaitPaths waits until all are there or ctx ends. It tells once which are not.
func awaitPaths(ctx context.Context, paths []string, tell func(missing []string)) {
	t := time.NewTicker(diskLookEvery)
	defer t.Stop()
	for told := false; ; {
		missing := absent(paths)
		if len(missing) == 0 {
			return
		}
		if !told {
			tell(missing)
			told = true
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func absent(paths []string) (missing []string) {
	for _, p := range paths {
		if _, err := os.Stat(p); os.IsNotExist(err) {
			missing = append(missing, p)
		}
	}
	return missing
}
