package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/spf13/cobra"

	"hapair/mirror/front/export"
)

// profiling is what the profile command was asked for.
type profiling struct {
	load    string
	dir     string
	out     string
	seconds int
	mib     int64
	allocs  bool
}

func profileCommand() *cobra.Command {
	var p profiling
	c := &cobra.Command{
		Use: "profile", Args: cobra.NoArgs, Short: "profile a pair within one process, with fio at its export front end",
		RunE: func(c *cobra.Command, _ []string) error { return p.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&p.load, "load", "4k-randwrite-qd32", "workload: "+workloadNames())
	f.StringVar(&p.dir, "dir", "/dev/shm", "where the copies lie")
	f.StringVar(&p.out, "profile", "bench.pprof", "file for go tool pprof")
	f.IntVar(&p.seconds, "seconds", 5, "length")
	f.Int64Var(&p.mib, "size", 256, "MiB of the volume")
	f.BoolVar(&p.allocs, "allocs", false, "every allocation instead of processor time")
	return c
}

func (p *profiling) run(ctx context.Context) (err error) {
	loads, err := chosen([]string{p.load})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(p.dir, "hapair-profile-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if p.allocs {
		runtime.MemProfileRate = 1 // before anything that is of interest
	}
	door := export.New(export.Config{Socket: filepath.Join(dir, "export.sock"), Name: resourceName})
	r, err := newRig(ctx, dir, p.mib<<20, door)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if _, err := runFio(ctx, box{}, dir, door.URI(), loads[0], time.Second); err != nil { // warm
		return err
	}
	got, err := p.record(func() (sample, error) {
		return runFio(ctx, box{}, dir, door.URI(), loads[0], time.Duration(p.seconds)*time.Second)
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s in %s: %.0f IOPS, %.0f us, p99 %.0f us; go tool pprof -top %s\n", loads[0].title, p.dir, got.iops, got.mean, got.p99, p.out)
	return nil
}

// record writes the profile of do.
func (p *profiling) record(do func() (sample, error)) (got sample, err error) {
	f, err := os.Create(p.out)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if !p.allocs {
		if err := pprof.StartCPUProfile(f); err != nil {
			return got, err
		}
		defer pprof.StopCPUProfile()
		return do()
	}
	if got, err = do(); err != nil {
		return got, err
	}
	return got, pprof.Lookup("allocs").WriteTo(f, 0)
}
