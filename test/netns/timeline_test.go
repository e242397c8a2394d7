package netns

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"hapair/agent/apiv1"
)

// timeline is the story as a node tells it.
func (p *pair) timeline(node string) *apiv1.Timeline {
	p.t.Helper()
	var out apiv1.Timeline
	p.must(p.Call(p.ctx, node, "GET", apiv1.PathTimeline, nil, &out))
	return &out
}

// The power of the Primary is cut. The survivor alone tells the story of both,
// with the last that its peer had said, and in the order of cause and effect; the
// witness tells the same. When the other is back it knows what it missed (with
// HAPAIR_LONG).
func TestTimelineOfTheDead(t *testing.T) {
	p := newPair(t, true, nil)
	victim, survivor := p.settle()
	asked := "maintenance on" // the last word of the victim
	p.must(p.Call(p.ctx, victim, "POST", apiv1.PathMaintenance, apiv1.MaintenanceRequest{On: true}, nil))
	p.must(p.Call(p.ctx, survivor, "POST", apiv1.PathMaintenance, apiv1.MaintenanceRequest{On: false}, nil))
	p.eventually("the survivor has the victim's last word", func() error { return tells(p.timeline(survivor), victim, asked, survivor, "maintenance off") })
	p.must(p.PowerOff(victim))
	p.takeover(survivor)
	promoted := fmt.Sprintf("promoted %s on %s", p.Resource(), survivor)
	for _, node := range []string{survivor, "gamma"} {
		p.eventually(node+" tells the story", func() error {
			tl := p.timeline(node)
			missing := func(text string) bool { return strings.HasPrefix(text, "the record of "+victim+" ends at ") }
			if !slices.ContainsFunc(tl.Missing, missing) {
				return fmt.Errorf("missing is %q", tl.Missing)
			}
			if len(tl.Gaps) > 0 {
				return fmt.Errorf("gaps %v", tl.Gaps)
			}
			return tells(tl, victim, "promoted "+p.Resource(), victim, asked, survivor, "maintenance off", survivor, promoted)
		})
	}
	if os.Getenv("HAPAIR_LONG") == "" {
		return
	}
	p.must(p.PowerOn(victim))
	p.rejoined(victim)
	p.eventually("the victim knows what it missed", func() error {
		return tells(p.timeline(victim), victim, asked, survivor, promoted, victim, "the agent runs")
	})
	p.finish()
}

// tells reports what is not in a story in this order: node, text, node, text...
func tells(tl *apiv1.Timeline, want ...string) error {
	rest := tl.Entries
	for ; len(want) > 0; want = want[2:] {
		i := slices.IndexFunc(rest, func(e apiv1.TimelineEntry) bool { return e.Node == want[0] && strings.Contains(e.Text, want[1]) })
		if i < 0 {
			return fmt.Errorf("%s does not tell of %q of %s among the last %d of %d entries", tl.Node, want[1], want[0], len(rest), len(tl.Entries))
		}
		rest = rest[i+1:]
	}
	return nil
}
