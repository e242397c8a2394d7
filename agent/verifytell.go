package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"hapair/agent/peering"
)

// A verify proves something about both copies, and only the node that led it
// knows. It tells the other, so that either can say it after a switchover.
const (
	provenPurpose = "proven"
	tellEvery     = time.Minute
)

// provenNews is what one node knows of one volume.
type provenNews struct {
	Resource string     `json:"resource"`
	Volume   uint16     `json:"volume"`
	Full     time.Time  `json:"full"` // when the latest verify of everything began
	Kept     keptVolume `json:"kept"`
}

type provenTaken struct {
	Taken bool `json:"taken"`
}

// tell brings news to the peer, at most once a minute; what is not taken is
// told again.
func (v *verifier) tell(ctx context.Context) {
	v.mu.Lock()
	due := v.mu.untold && time.Since(v.mu.told) >= tellEvery
	if due {
		v.mu.untold, v.mu.told = false, time.Now()
	}
	v.mu.Unlock()
	if !due {
		return
	}
	for _, x := range v.r.mirror.View().Volumes {
		var answer provenTaken
		if err := v.r.a.exchange(ctx, v.r.peer, provenPurpose, v.news(x.Number, x.SizeBytes), &answer); err != nil || !answer.Taken {
			v.r.a.log.Debug("the peer was not told what is proven equal", zap.String("resource", v.r.name), zap.Error(err))
			v.mu.Lock()
			v.mu.untold = true
			v.mu.Unlock()
			return
		}
	}
}

func (v *verifier) news(number uint16, size int64) provenNews {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := *v.volume(number, size)
	k.ProvenAt = append([]int64(nil), k.ProvenAt...)
	return provenNews{Resource: v.r.name, Volume: number, Full: v.mu.kept.Full, Kept: k}
}

// learn takes over what the peer has proven of a volume of this size. Its clock
// may be ahead: nothing is proven in the future.
func (v *verifier) learn(n *provenNews, size int64, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := v.volume(n.Volume, size)
	if n.Kept.SizeBytes != size || n.Kept.RegionBytes != k.RegionBytes || len(n.Kept.ProvenAt) != len(k.ProvenAt) {
		return false
	}
	for i, at := range n.Kept.ProvenAt {
		k.ProvenAt[i] = max(k.ProvenAt[i], min(at, now.Unix()))
	}
	if n.Full.After(v.mu.kept.Full) && !n.Full.After(now) {
		v.mu.kept.Full = n.Full
	}
	v.mu.stale = true
	return true
}

// acceptProven hears what the peer has proven.
func (a *agent) acceptProven(c *peering.Conn) {
	defer closeQuietly(c)
	var n provenNews
	if err := take(c, exchangeTimeout, &n); err != nil {
		a.log.Warn("news were not understood", zap.String("peer", c.Node), zap.Error(err))
		return
	}
	var answer provenTaken
	if r, p := a.shared(c.Node, n.Resource); p == nil {
		for _, x := range r.mirror.View().Volumes {
			if x.Number == n.Volume {
				answer.Taken = r.verify.learn(&n, x.SizeBytes, time.Now())
			}
		}
	}
	a.give(c, answer)
}
