package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"hapair/mirror"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// keepEvery is how often the position of a verify is kept, and looked whether
// one is due.
const keepEvery = 5 * time.Second

// run keeps what is proven, lets a verify of an earlier life go on, and starts
// the ones of the configuration, until ctx ends.
func (v *verifier) run(ctx context.Context) {
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	for told := ""; ; {
		v.goOn(ctx)
		m := v.r.mirror.View()
		v.look(m)
		v.schedule(ctx, &m)
		v.tell(ctx)
		text := ""
		if err := v.save(); err != nil {
			text = err.Error()
			if text != told {
				v.r.a.log.Warn("not kept", zap.String("resource", v.r.name), zap.Error(err))
			}
		}
		told = text
		select {
		case <-ctx.Done():
			v.look(v.r.mirror.View())
			if err := v.save(); err != nil {
				v.r.a.log.Warn("not kept", zap.String("resource", v.r.name), zap.Error(err))
			}
			return
		case <-t.C:
		}
	}
}

// goOn resumes the verify that an earlier life of this agent ran, once that is
// possible.
func (v *verifier) goOn(ctx context.Context) {
	run, was := v.unfinished()
	if !was {
		return
	}
	err := v.begin(ctx, mirror.VerifyOptions{Volume: run.Volume, Repair: run.Repair, Rate: run.Rate, Resume: true, From: &run.At}, run.Scheduled)
	if err == nil {
		return
	}
	v.mu.Lock()
	v.mu.waits = err.Error()
	v.mu.Unlock()
}

// schedule starts a verify when the configuration wants one; the Primary does.
func (v *verifier) schedule(ctx context.Context, m *mirror.View) {
	c := &v.r.conf.Verify
	if c.Every <= 0 || m.Role != state.Primary || m.Verify.State == engine.VerifyRunning || !v.due(time.Now(), c.Every) {
		return
	}
	o := mirror.VerifyOptions{Volume: mirror.AllVolumes, Rate: int64(c.Rate), Repair: c.Repair}
	if err := v.begin(ctx, o, true); err != nil {
		v.r.a.log.Debug("a verify is due and waits", zap.String("resource", v.r.name), zap.Error(err))
	}
}

// due reports whether the last verify of everything began so long ago, or never.
func (v *verifier) due(now time.Time, every time.Duration) bool {
	if _, was := v.unfinished(); was {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return now.Sub(v.mu.kept.Full) >= every || now.Before(v.mu.kept.Full)
}
