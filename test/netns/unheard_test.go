package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
)

// The heartbeat of one node has another key: on no path does anybody hear it. The mirror
// goes over ports of its own, and as long as it does the peer is no dead one: what needs a
// peer that lives goes on.
func TestHeartbeatUnheard(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.Stop(secondary))
	p.must(os.WriteFile(filepath.Join(p.Dir(), secondary, "etc", "gossip.key"), []byte(strings.Repeat("5a", 32)+"\n"), 0o600))
	p.must(p.Start(secondary))
	p.rejoined(secondary)
	for _, node := range p.Data() {
		p.status(node, "has every path to its peer dead", func(s *apiv1.Status) bool { return everyPathDead(s, p.other(node)) })
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); idle(p, 100*time.Millisecond) {
		for _, node := range p.Data() {
			p.must(p.livesByItsLink(node))
		}
	}
	w.progress(steady)
	p.must(p.Verb(p.ctx, primary, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: secondary}, nil))
	p.takeover(secondary)
	w.progress(steady)
	w.stop()
	p.finish()
}

// livesByItsLink is an error where a node does not take its peer for alive, or hears it
// on a path.
func (p *pair) livesByItsLink(node string) error {
	s, err := p.Status(p.ctx, node)
	if err != nil {
		return err
	}
	m := member(s, p.other(node))
	if !everyPathDead(s, m.Name) || m.State != apiv1.MemberAlive {
		return fmt.Errorf("to %s, %s is %s: %q; %+v", node, m.Name, m.State, m.Reasons, m.Paths)
	}
	return nil
}

func everyPathDead(s *apiv1.Status, peer string) bool {
	for _, x := range member(s, peer).Paths {
		if x.State != apiv1.MemberDead {
			return false
		}
	}
	return len(member(s, peer).Paths) > 0
}

// member is what is known of a node; the zero one where it is not listed.
func member(s *apiv1.Status, name string) apiv1.Member {
	for _, m := range s.Members {
		if m.Name == name {
			return m
		}
	}
	return apiv1.Member{}
}
