package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/kernel/durable"
	"hapair/mirror"
	"hapair/mirror/engine"
)

// keepFormat of the file; one of another format is begun anew.
const keepFormat = 1

// kept is what outlives a restart: when each region was last proven equal, and
// the verify that runs, which then goes on.
type kept struct {
	Format  int                    `json:"format"`
	Run     *keptRun               `json:"run,omitempty"` // the latest
	Full    time.Time              `json:"full"`          // when the latest of all volumes began
	Volumes map[string]*keptVolume `json:"volumes"`       // by number
}

type keptRun struct {
	Began     time.Time             `json:"began"`
	Ended     time.Time             `json:"ended"`  // zero while it runs
	Volume    int                   `json:"volume"` // mirror.AllVolumes
	Repair    bool                  `json:"repair"`
	Scheduled bool                  `json:"scheduled"`
	Rate      int64                 `json:"rate_bytes_per_s"`
	Stopped   bool                  `json:"stopped"` // before it was done: At says where
	At        mirror.VerifyPosition `json:"at"`
}

type keptVolume struct {
	SizeBytes   int64   `json:"size_bytes"`
	RegionBytes int64   `json:"region_bytes"`
	ProvenAt    []int64 `json:"proven_at"` // Unix seconds per region; 0: never
}

// verifier keeps that for one resource, and starts the verifies of the
// configuration.
type verifier struct {
	r    *resource
	path string

	mu struct {
		sync.Mutex
		kept   kept
		stale  bool   // the file says something else
		waits  string // why the run of an earlier life does not go on yet
		last   engine.VerifyState
		untold bool // the peer does not know all of it
		told   time.Time
	}
}

// newVerifier reads what an earlier life kept. What cannot be read is begun
// anew: then nothing has been proven.
func newVerifier(r *resource) *verifier {
	v := &verifier{r: r, path: filepath.Join(r.a.cfg.StateDir, "verify", r.name+".json")}
	v.mu.kept = kept{Format: keepFormat, Volumes: map[string]*keptVolume{}}
	var k kept
	data, err := os.ReadFile(v.path)
	if err == nil {
		err = json.Unmarshal(data, &k)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil || k.Format != keepFormat || k.Volumes == nil:
		r.a.log.Warn("when the copies were proven equal is forgotten", zap.String("file", v.path), zap.Int("format", k.Format), zap.Error(err))
	default:
		v.mu.kept = k
	}
	return v
}

// save writes the file when it says something else; the old one or the new one
// is there, whatever happens.
func (v *verifier) save() error {
	v.mu.Lock()
	stale := v.mu.stale
	data, err := json.Marshal(&v.mu.kept)
	v.mu.stale = false
	v.mu.Unlock()
	if !stale {
		return nil
	}
	if err == nil {
		err = durable.Replace(v.path, data)
	}
	if err != nil {
		v.mu.Lock()
		v.mu.stale = true
		v.mu.Unlock()
		return fmt.Errorf("keep what is proven equal: %w", err)
	}
	return nil
}

// proven notes that a region was found equal just now.
func (v *verifier) proven(volume uint16, size, offset int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := v.volume(volume, size)
	if i := offset / k.RegionBytes; i < int64(len(k.ProvenAt)) {
		k.ProvenAt[i] = time.Now().Unix()
		v.mu.stale, v.mu.untold = true, true
	}
}

// volume returns what is kept of one; of another size nothing is.
func (v *verifier) volume(number uint16, size int64) *keptVolume {
	key := strconv.Itoa(int(number))
	k := v.mu.kept.Volumes[key]
	if unit := engine.RegionBytes(size); k == nil || k.SizeBytes != size || k.RegionBytes != unit || int64(len(k.ProvenAt)) != (size+unit-1)/unit {
		k = &keptVolume{SizeBytes: size, RegionBytes: unit, ProvenAt: make([]int64, (size+unit-1)/unit)}
		v.mu.kept.Volumes[key] = k
	}
	return k
}

// provenStatus says when a volume's regions were last found equal.
func (v *verifier) provenStatus(number uint16, size int64) apiv1.Proven {
	v.mu.Lock()
	defer v.mu.Unlock()
	k, now := v.volume(number, size), time.Now().Unix()
	out := apiv1.Proven{RegionBytes: k.RegionBytes}
	oldest := now
	for i, at := range k.ProvenAt {
		oldest = min(oldest, at)
		if at == 0 {
			out.RegionsAgeS = append(out.RegionsAgeS, -1)
			continue
		}
		out.RegionsAgeS = append(out.RegionsAgeS, max(now-at, 0))
		out.Bytes += min(k.RegionBytes, size-int64(i)*k.RegionBytes)
	}
	if oldest > 0 && len(k.ProvenAt) > 0 {
		out.Oldest = timeOf(time.Unix(oldest, 0))
	}
	return out
}

// begin starts a verify and notes that it runs.
func (v *verifier) begin(ctx context.Context, o mirror.VerifyOptions, scheduled bool) error {
	if err := v.r.mirror.Verify(ctx, o); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	k, now := &v.mu.kept, time.Now()
	if !o.Resume || k.Run == nil {
		k.Run = &keptRun{Began: now}
		if o.Volume == mirror.AllVolumes {
			k.Full = now
		}
	}
	k.Run.Ended, k.Run.Volume, k.Run.Repair, k.Run.Scheduled, k.Run.Rate, k.Run.Stopped = time.Time{}, o.Volume, o.Repair, scheduled, o.Rate, false
	v.mu.stale, v.mu.waits, v.mu.last = true, "", engine.VerifyRunning
	return nil
}

// look notes how far the verify is, or that it has ended.
func (v *verifier) look(m mirror.View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	was, now, run := v.mu.last, m.Verify.State, v.mu.kept.Run
	if run == nil || now == engine.VerifyNone || was != engine.VerifyRunning {
		return
	}
	v.mu.last, v.mu.stale = now, true
	run.At = v.r.mirror.PositionOf(m.Verify.Position)
	if now != engine.VerifyRunning {
		run.Ended, run.Stopped = time.Now(), now == engine.VerifyStopped
	}
}

// unfinished is the run of an earlier life that is to go on.
func (v *verifier) unfinished() (keptRun, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	run := v.mu.kept.Run
	if run == nil || !run.Ended.IsZero() || v.mu.last != engine.VerifyNone {
		return keptRun{}, false
	}
	return *run, true
}

// forget ends the run of an earlier life; it reports whether there was one.
func (v *verifier) forget() bool {
	if _, was := v.unfinished(); !was {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.kept.Run.Ended, v.mu.kept.Run.Stopped, v.mu.stale, v.mu.waits = time.Now(), true, true, ""
	return true
}

// stoppedAt is where the latest verify was stopped, nil when it was not.
func (v *verifier) stoppedAt() *mirror.VerifyPosition {
	v.mu.Lock()
	defer v.mu.Unlock()
	if run := v.mu.kept.Run; run != nil && run.Stopped {
		at := run.At
		return &at
	}
	return nil
}

// scheduled reports whether the latest run is the configuration's.
func (v *verifier) scheduled() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.kept.Run != nil && v.mu.kept.Run.Scheduled
}

// fill adds to a status what only the file knows.
func (v *verifier) fill(s *apiv1.Verify) {
	v.mu.Lock()
	defer v.mu.Unlock()
	run := v.mu.kept.Run
	if run == nil {
		return
	}
	s.Began, s.Ended, s.Scheduled = timeOf(run.Began), timeOf(run.Ended), run.Scheduled
	if v.mu.last != engine.VerifyNone || s.State != apiv1.VerifyNone {
		return
	}
	s.Repair = run.Repair // of an earlier life
	if run.Volume != mirror.AllVolumes {
		volume := run.Volume
		s.Volume = &volume
	}
	switch {
	case run.Ended.IsZero():
		s.State, s.Waits = apiv1.VerifyRunning, v.mu.waits
		if s.Waits == "" {
			s.Waits = "the agent has just started"
		}
	case run.Stopped:
		s.State = apiv1.VerifyStopped
	default:
		s.State = apiv1.VerifyDone
	}
}
