package netns

import (
	"testing"

	"hapair/agent/apiv1"
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
