package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// workload is one row.
type workload struct {
	title string
	rw    string
	bytes int
	depth int
}

var workloads = []workload{
	{"4k randwrite QD1", "randwrite", 4 << 10, 1},
	{"4k randwrite QD32", "randwrite", 4 << 10, 32},
	{"4k randread QD32", "randread", 4 << 10, 32},
	{"1M write QD8", "write", 1 << 20, 8},
}

// key is the name of a workload on the command line.
func (w workload) key() string { return strings.ToLower(strings.ReplaceAll(w.title, " ", "-")) }

func workloadNames() string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.key())
	}
	return strings.Join(names, ", ")
}

// chosen are the workloads with these names; all, when none are named.
func chosen(names []string) ([]workload, error) {
	if len(names) == 0 {
		return workloads, nil
	}
	var out []workload
	for _, n := range names {
		i := slices.IndexFunc(workloads, func(w workload) bool { return w.key() == n })
		if i < 0 {
			return nil, fmt.Errorf("no workload %q: want some of %s", n, workloadNames())
		}
		out = append(out, workloads[i])
	}
	return out, nil
}

// sample is one measurement.
type sample struct {
	iops   float64
	mbps   float64 // 10^6 bytes per second
	mean   float64 // us
	p99    float64 // us
	ops    float64 // operations of the whole measurement
	cpu10k float64 // seconds of processor time of the servers for 10 000 operations
}

// fioResult is what is read of fio's report.
type fioResult struct {
	Jobs []struct {
		Error int     `json:"error"`
		Read  fioSide `json:"read"`
		Write fioSide `json:"write"`
	} `json:"jobs"`
}

type fioSide struct {
	IOPS     float64 `json:"iops"`
	Bytes    float64 `json:"bw_bytes"`
	TotalIOs float64 `json:"total_ios"`
	Lat      struct {
		Mean       float64            `json:"mean"`
		Percentile map[string]float64 `json:"percentile"`
	} `json:"lat_ns"`
}

func parseFio(text []byte) (sample, error) {
	var r fioResult
	if err := json.Unmarshal(text, &r); err != nil {
		return sample{}, fmt.Errorf("fio's report: %w", err)
	}
	if len(r.Jobs) != 1 {
		return sample{}, fmt.Errorf("fio's report has %d jobs, not 1", len(r.Jobs))
	}
	j := r.Jobs[0]
	side := j.Write
	if j.Read.TotalIOs > 0 {
		side = j.Read
	}
	p99, ok := side.Lat.Percentile["99.000000"]
	switch {
	case j.Error != 0:
		return sample{}, fmt.Errorf("fio ended with error %d", j.Error)
	case side.TotalIOs == 0:
		return sample{}, errors.New("fio did no operation")
	case !ok:
		return sample{}, errors.New("fio's report has no 99th percentile")
	}
	return sample{iops: side.IOPS, mbps: side.Bytes / 1e6, mean: side.Lat.Mean / 1e3, p99: p99 / 1e3, ops: side.TotalIOs}, nil
}

const fioPatience = 60 * time.Second // beyond the time it measures

// runFio measures one workload.
func runFio(ctx context.Context, b box, dir, uri string, w workload, length time.Duration) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, length+fioPatience)
	defer cancel()
	report := filepath.Join(dir, "fio.json")
	cmd := exec.CommandContext(ctx, "fio", "--name=bench", "--ioengine=nbd", "--uri="+uri, "--rw="+w.rw, "--bs="+strconv.Itoa(w.bytes),
		"--iodepth="+strconv.Itoa(w.depth), "--time_based", "--runtime="+strconv.FormatInt(length.Milliseconds(), 10)+"ms",
		"--randrepeat=0", "--norandommap", "--lat_percentiles=1", "--output-format=json", "--output="+report)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := b.start(cmd.Start); err != nil {
		return sample{}, fmt.Errorf("fio %s: %w", w.title, err)
	}
	if err := cmd.Wait(); err != nil {
		return sample{}, fmt.Errorf("fio %s: %w: %s", w.title, err, out.Bytes())
	}
	text, err := os.ReadFile(report)
	if err != nil {
		return sample{}, err
	}
	s, err := parseFio(text)
	if err != nil {
		return s, fmt.Errorf("fio %s: %w", w.title, err)
	}
	return s, nil
}
