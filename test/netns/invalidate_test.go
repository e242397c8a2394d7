package netns

import (
	"strings"
	"testing"

	"hapair/agent/apiv1"
)

// refused runs hactl on a node and wants it refused, with a sentence and a
// command that would help.
func (p *pair) refused(node, sentence string, args ...string) {
	p.t.Helper()
	out, err := p.Run(p.ctx, node, append([]string{"hactl"}, args...)...)
	if err == nil || !strings.Contains(out, sentence) || !strings.Contains(out, "try: ") {
		p.t.Errorf("hactl %q on %s: %v: %s; wanted %q", args, node, err, out, sentence)
	}
}

// A copy is given up, by either node, and fetched as a whole while the Primary
// serves; the only good one is never given up.
func TestInvalidate(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	res := p.Resource()
	p.refused(primary, primary+" is Primary", "invalidate", res)
	p.refused(secondary, primary+" refuses: "+primary+" is Primary", "invalidate", res, "--peer")
	p.refused(primary, "has no volume 7", "invalidate", res, "--peer", "--volume", "7")
	for _, args := range [][]string{{primary, "--peer"}, {secondary}, {secondary, "--volume", "0"}, {primary, "--peer", "--volume", "0"}} {
		token := p.look(primary).Token
		out, err := p.Run(p.ctx, args[0], append([]string{"hactl", "invalidate", res}, args[1:]...)...)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		p.resource(primary, "has taken the other copy out", func(r *apiv1.Resource) bool { return r.Token > token })
		p.rejoined(secondary)
		if r := p.look(primary); r.Token != token+2 {
			t.Errorf("%v: the record had token %d and has %d: taken out and in again would be 2 more", args, token, r.Token)
		}
	}
	w.progress(steady)
	p.must(p.Kill(primary))
	p.takeover(secondary)
	p.refused(secondary, "does not answer", "invalidate", res, "--peer")
	p.must(p.Start(primary))
	p.rejoined(primary)
	w.stop()
	p.finish()
}

// Without a quorum the ledger cannot take the copy out of the in-sync set, so it is
// kept. The agent of a Primary that stands still looks alive for a moment.
func TestInvalidateNeedsAQuorum(t *testing.T) {
	p := newPair(t, false, withoutWitness)
	primary, secondary := p.settle()
	p.must(p.Pause(primary))
	p.refused(secondary, "the ledger cannot take this copy out of the in-sync set, so it is kept", "invalidate", p.Resource())
	if got := p.look(secondary).DiskState; got != "UpToDate" {
		t.Errorf("refused, and the disk is %s", got)
	}
	p.must(p.Resume(primary))
	p.rejoined(secondary)
}
