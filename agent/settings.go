package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/mirror"
	"hapair/mirror/aftersplit"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// settings are what an operator may change while a resource runs. They begin as
// the configuration has them.
type settings struct {
	onNoQuorum               config.OnNoQuorum
	diskTimeout, peerTimeout time.Duration
	protocol                 config.Protocol
	congestion               config.Congestion
	afterSplit               aftersplit.Policies
}

func settingsOf(rc *config.Resource) *settings {
	return &settings{rc.OnNoQuorum, rc.DiskTimeout, rc.PeerTimeout, rc.Protocol, rc.Congestion, rc.AfterSplitBrain.Policies()}
}

func (s *settings) mirror() mirror.Settings {
	return mirror.Settings{DiskTimeout: s.diskTimeout, Settings: engine.Settings{FailFrozen: s.onNoQuorum == config.FailIO, PeerTimeout: s.peerTimeout,
		Protocol: state.ParseProtocol(string(s.protocol)), CongestionFill: int64(s.congestion.Fill), PullAhead: s.congestion.Action == config.CongestionPullAhead, AfterSplit: s.afterSplit}}
}

func (s *settings) status() apiv1.Settings {
	return apiv1.Settings{OnNoQuorum: string(s.onNoQuorum), DiskTimeoutMS: s.diskTimeout.Milliseconds(), PeerTimeoutMS: s.peerTimeout.Milliseconds(),
		Protocol: string(s.protocol), CongestionFillBytes: int64(s.congestion.Fill), CongestionAction: string(s.congestion.Action)}
}

// changed are the settings with what a request says, all of it or none.
func (s settings) changed(q *apiv1.SetRequest) (*settings, error) {
	if *q == (apiv1.SetRequest{}) {
		return nil, badSetting("nothing is to be set")
	}
	switch how := config.OnNoQuorum(cmp.Or(q.OnNoQuorum, string(s.onNoQuorum))); how {
	case config.SuspendIO, config.FailIO:
		s.onNoQuorum = how
	default:
		return nil, badSetting(fmt.Sprintf("on_no_quorum %q: want %s or %s", q.OnNoQuorum, config.SuspendIO, config.FailIO))
	}
	switch p := config.Protocol(cmp.Or(q.Protocol, string(s.protocol))); p {
	case config.ProtocolA, config.ProtocolB, config.ProtocolC:
		s.protocol = p
	default:
		return nil, badSetting(fmt.Sprintf("protocol %q: want A, B or C", q.Protocol))
	}
	for _, x := range []struct {
		key, text string
		to        *time.Duration
	}{{"disk_timeout", q.DiskTimeout, &s.diskTimeout}, {"peer_timeout", q.PeerTimeout, &s.peerTimeout}} {
		if x.text == "" {
			continue
		}
		d, err := config.ParsePatience(x.text)
		if err != nil {
			return nil, badSetting(x.key + " " + err.Error())
		}
		*x.to = d
	}
	return &s, nil
}

func badSetting(text string) error {
	return &apiv1.Problem{Code: apiv1.CodeBadRequest, Text: text, Hint: "docs/configuration.md has the keys of a resource"}
}

// Set changes settings of a resource on this node, until the agent starts again.
func (b *backend) Set(ctx context.Context, name string, q apiv1.SetRequest) (apiv1.Changed, error) {
	now := ""
	c, err := b.change(ctx, name, "set", func(r *resource) error {
		r.setting.Lock() // one after the other, the mirror too
		defer r.setting.Unlock()
		next, err := r.set.Load().changed(&q)
		if err != nil {
			return err
		}
		r.set.Store(next)
		r.mirror.Configure(next.mirror())
		now = fmt.Sprintf("on_no_quorum %s, disk_timeout %s, peer_timeout %s, protocol %s", next.onNoQuorum, next.diskTimeout, next.peerTimeout, next.protocol)
		return nil
	})
	c.Text = fmt.Sprintf("%s on %s: %s, until its agent starts again; the configuration file has not changed", name, b.a.self, now)
	return c, err
}
