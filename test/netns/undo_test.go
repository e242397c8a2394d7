package netns

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"hapair/agent/apiv1"
)

// discards has a node that is Secondary give up its side.
func (p *pair) discards(node string) {
	p.t.Helper()
	p.must(p.Verb(p.ctx, node, apiv1.VerbConnect, apiv1.ConnectRequest{DiscardMyData: true}, nil))
	p.rejoined(node)
}

// knowApart waits until both know of the split brain.
func (p *pair) knowApart(nodes ...string) {
	p.t.Helper()
	for _, node := range nodes {
		p.resource(node, "knows of the split brain, and what each has", func(r *apiv1.Resource) bool {
			return r.SplitBrain && len(r.Sides) == 2 && len(r.Sides[1].Volumes) == 1
		})
	}
}

// keeps wants a node to keep a complete image, and returns it.
func (p *pair) keeps(node, state string) apiv1.KeptImage {
	p.t.Helper()
	r := p.resource(node, "keeps what it gave up", func(r *apiv1.Resource) bool { return len(r.Kept) == 1 && r.Kept[0].State == state })
	return r.Kept[0]
}

// given reads a file of what a node gave up.
func (p *pair) given(node, file string) string {
	p.t.Helper()
	do := func(action string) apiv1.Changed {
		var c apiv1.Changed
		p.must(p.Verb(p.ctx, node, apiv1.VerbSplitBrain, apiv1.SplitBrainRequest{Action: action}, &c))
		return c
	}
	c := do(apiv1.SplitMount)
	device := p.keeps(node, p.look(node).Kept[0].State).Device
	if device == "" || !strings.Contains(c.Text, device) {
		p.t.Fatalf("mounted as %q: %s", device, c.Text)
	}
	out, err := p.Run(p.ctx, node, "sh", "-c", fmt.Sprintf("mkdir -p /tmp/given && mount -t ext4 -o ro,noload %s /tmp/given && cat /tmp/given/%s; e=$?; dd if=/dev/zero of=%s bs=4096 count=1 oflag=direct 2>/dev/null && echo WRITABLE; umount /tmp/given; exit $e", device, file, device))
	if err != nil {
		p.t.Fatalf("%s of what %s gave up: %v: %s", file, node, err, out)
	}
	if do(apiv1.SplitUnmount); p.look(node).Kept[0].Device != "" {
		p.t.Error("it is offered yet")
	}
	return strings.TrimSpace(out)
}

// The whole story of a split brain in which the wrong side was chosen first: what was
// given up is looked at while the pair goes on, put back, and kept instead; then the
// other side is what was given up.
func TestSplitBrainUndone(t *testing.T) {
	p := newPair(t, true, withoutWitness)
	first, second := p.settle()
	p.part(first, second)
	_, err := p.Run(p.ctx, second, "sh", "-c", "head -c 3000000 /dev/urandom >/srv/pg/big; sync; sha256sum </srv/pg/big >/srv/pg/sum; sync")
	p.must(err)
	p.join(second)
	p.knowApart(first, second)
	for _, node := range []string{first, second} {
		out, err := p.Run(p.ctx, node, "hactl", "explain", p.Resource())
		if err != nil || !strings.Contains(out, "that loses at most") || !strings.Contains(out, first+"  Primary, Primary when the two parted") || !strings.Contains(out, " UTC by its clock") {
			t.Errorf("%v: %s", err, out)
		}
	}

	p.must(p.Verb(p.ctx, second, apiv1.VerbDemote, apiv1.DemoteRequest{}, nil))
	p.discards(second)
	p.holds(first, first)
	p.identical(first)
	if k := p.keeps(second, "keeping"); k.KeptBlocks == 0 || k.UsedBytes > 64*mib || k.Peer != first {
		t.Errorf("%+v", k)
	}
	if got := p.given(second, "whose"); got != second {
		t.Errorf("what was given up says %q", got)
	}
	_, err = p.Run(p.ctx, first, "sh", "-c", "echo later >/srv/pg/later; rm /srv/pg/whose; head -c 9000000 /dev/urandom >/srv/pg/more; sync; fstrim /srv/pg || true")
	p.must(err)
	if got := p.given(second, "whose"); got != second {
		t.Errorf("after the other side went on, what was given up says %q", got)
	}
	p.refuses(second, apiv1.VerbConnect, apiv1.ConnectRequest{DiscardMyData: true}, apiv1.CodeRefused, "invalidate")

	p.must(p.Kill(second)) // an image outlives the agent
	p.must(p.Start(second))
	p.rejoined(second)
	p.must(p.Verb(p.ctx, second, apiv1.VerbSplitBrain, apiv1.SplitBrainRequest{Action: apiv1.SplitUndo}, nil))
	p.keeps(second, "undone")
	p.knowApart(first, second)
	p.resource(first, "goes on, alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	p.resource(second, "stands alone", func(r *apiv1.Resource) bool {
		return r.Role == "Secondary" && r.DiskState == "Outdated" && r.Peers[0].Connection == "StandAlone"
	})

	p.must(p.Verb(p.ctx, first, apiv1.VerbDemote, apiv1.DemoteRequest{}, nil))
	p.must(p.Verb(p.ctx, second, apiv1.VerbPromote, apiv1.PromoteRequest{Force: true, Reason: "the other side was the right one"}, nil))
	p.takeover(second)
	p.holds(second, second)
	p.eventually("what was given up first is whole", func() error {
		out, err := p.Run(p.ctx, second, "sh", "-c", "test \"$(sha256sum </srv/pg/big)\" = \"$(cat /srv/pg/sum)\" && test ! -e /srv/pg/later")
		if err != nil {
			return errors.New(out + err.Error())
		}
		return nil
	})
	p.discards(first)
	p.identical(second)
	if got := p.given(first, "later"); got != "later" {
		t.Errorf("what was given up second says %q", got)
	}
	p.endClean(second, first)
}

// endClean drops what is kept, ends the services, and wants both file systems to be whole.
func (p *pair) endClean(primary, secondary string) {
	p.t.Helper()
	for _, node := range []string{primary, secondary} {
		p.must(p.Verb(p.ctx, node, apiv1.VerbSplitBrain, apiv1.SplitBrainRequest{Action: apiv1.SplitDrop}, nil))
		p.resource(node, "keeps nothing", func(r *apiv1.Resource) bool { return len(r.Kept) == 0 })
	}
	p.must(p.Verb(p.ctx, primary, apiv1.VerbDemote, apiv1.DemoteRequest{}, nil))
	p.bare(primary)
	for _, node := range []string{primary, secondary} {
		if out, err := p.Run(p.ctx, node, "e2fsck", "-fn", p.Image(node)); err != nil {
			p.t.Errorf("file system of %s: %v: %s", node, err, out)
		}
	}
}
