package netns

import (
	"slices"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/check/history"
	"hapair/test/lab"
)

// asked is how much the clients tell between two blows: some hundred answers.
const asked = 1500

// Clients on both nodes read and write the same blocks all the time, on
// whichever device is there, while one thing after another breaks and is
// mended: all they are told can be explained by one order.
func TestHistory(t *testing.T) {
	p := newPair(t, false, nil)
	p.settle()
	h := p.historian()
	for range number(t, "HAPAIR_ROUNDS", 1) {
		for _, blow := range []func(*historian, string){powerCut, switchover, pause, crossoverCut, secondaryCut, secondaryAway} {
			primary, _ := p.settle()
			h.progress(asked)
			blow(h, primary)
			h.progress(asked)
		}
	}
	p.settle()
	h.judge()
	p.finish()
}

// powerCut cuts the power of the Primary; it comes back.
func powerCut(h *historian, primary string) {
	p := h.p
	p.must(p.PowerOff(primary))
	h.died(primary)
	p.takeover(p.other(primary))
	h.progress(asked)
	p.must(p.PowerOn(primary))
	h.start(primary)
	p.rejoined(primary)
}

// switchover hands over. The device cannot be taken from who has it open, so the
// clients of that node end theirs first.
func switchover(h *historian, primary string) {
	p := h.p
	h.stop(primary)
	p.must(p.Verb(p.ctx, primary, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: p.other(primary)}, nil))
	h.start(primary)
	p.takeover(p.other(primary))
}

// pause stops the Primary in its tracks until the other has taken over.
func pause(h *historian, primary string) {
	p := h.p
	p.must(p.Pause(primary))
	p.takeover(p.other(primary))
	h.progress(asked)
	p.must(p.Resume(primary))
	p.rejoined(primary)
}

// crossoverCut pulls the cable that the mirror prefers.
func crossoverCut(h *historian, primary string) {
	p := h.p
	p.must(p.Cut(primary, lab.Crossover))
	p.pathOf(primary, lab.LAN)
	h.progress(asked)
	p.must(p.Heal(primary, lab.Crossover))
}

// secondaryCut cuts the power of the Secondary; it comes back.
func secondaryCut(h *historian, primary string) {
	p := h.p
	p.must(p.PowerOff(p.other(primary)))
	h.died(p.other(primary))
	h.progress(asked)
	p.must(p.PowerOn(p.other(primary)))
	h.start(p.other(primary))
	p.rejoined(p.other(primary))
}

// secondaryAway cuts the Primary off from all others: its lease runs out, and
// the other takes over.
func secondaryAway(h *historian, primary string) {
	p := h.p
	p.isolate(primary)
	p.takeover(p.other(primary))
	h.progress(asked)
	p.join(primary)
	p.rejoined(primary)
}

// A Primary is cut off with a write on its own disk only. The other takes over
// and serves nobody; it is cut off in turn, the first is back and only reads, and
// then the other way round again. No node ever crashed, and nobody wrote since:
// what a read has shown of that write must not vanish (R10). By the export, for a
// loop device flushes when it is made, and that settles it.
func TestReadOnlyTenures(t *testing.T) {
	p := newPair(t, false, func(o *lab.Options) { o.Frontend = "export" })
	if _, err := p.LookPath("qemu-io"); err != nil {
		t.Skipf("needs qemu-io (Debian: qemu-utils): %v", err)
	}
	first, second := p.settle()
	device := p.device(first)
	p.isolate(first)
	p.start(first, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 4k", device)
	p.takeover(second)
	p.isolate(second)
	p.must(p.Heal(first, lab.LAN))
	var h history.History
	h.Add(history.Op{Who: first, Kind: history.Write, Blocks: 1, Value: 0x5a})
	p.resource(first, "is alone with its lease", func(r *apiv1.Resource) bool { return serving(r) && r.LeaseMS > 0 })
	p.readBlock(first, &h)
	p.must(p.Cut(first, lab.LAN))
	p.must(p.Heal(second, lab.LAN))
	r := p.resource(second, "serves, or knows that it may not", func(r *apiv1.Resource) bool {
		return serving(r) && r.LeaseMS > 0 || slices.Equal(r.InSync, []string{first})
	})
	if serving(r) {
		p.readBlock(second, &h)
	}
	p.join(first)
	p.join(second)
	primary, _ := p.settle()
	p.readBlock(primary, &h)
	if _, err := h.Judge(searchTime); err != nil {
		t.Errorf("the answers have no order: %v", err)
	}
}

// readBlock reads the block of TestReadOnlyTenures, and nothing else: without a
// flush.
func (p *pair) readBlock(node string, h *history.History) {
	p.t.Helper()
	o := history.Op{Who: node, Kind: history.Read, Blocks: 1, Found: make([]history.Contents, 1), Call: bootTime(), Answered: true}
	if out := p.run(node, "qemu-io", "-r", "-f", "raw", "-c", "read -v 1M 512", p.device(node)); strings.Contains(out, "5a 5a 5a") {
		for s := range o.Found[0] {
			o.Found[0][s] = 0x5a
		}
	}
	o.Return = bootTime()
	h.Add(o)
	p.say("%s: %s, found %s", node, &o, o.Found[0])
}

// Both nodes lose their power under the clients: nothing that was flushed may be
// gone, and what was not is gone for good once its loss was seen.
func TestHistoryBothLosePower(t *testing.T) {
	long(t)
	p := newPair(t, false, nil)
	p.settle()
	h := p.historian()
	for range number(t, "HAPAIR_ROUNDS", 3) {
		primary, secondary := p.settle()
		h.progress(asked)
		p.must(p.PowerOff(primary))
		from := bootTime()
		p.must(p.PowerOff(secondary))
		h.lost(from, bootTime())
		h.died(primary)
		h.died(secondary)
		for _, node := range []string{secondary, primary} {
			p.must(p.PowerOn(node))
			h.start(node)
		}
		p.settle()
		h.progress(asked)
	}
	h.judge()
	p.finish()
}
