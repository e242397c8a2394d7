package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// blind has the lab's fence agent say off of every node from now on, and switch none:
// as ClusterLabs' do of what they do not understand.
func (p *pair) blind() {
	p.t.Helper()
	sighted := filepath.Join(p.Dir(), "sighted", lab.FenceName)
	p.must(os.Mkdir(filepath.Dir(sighted), 0o755))
	p.must(os.Rename(p.FenceProgram(), sighted))
	const program = "#!/bin/sh\nin=$(cat)\ncase \"$in\" in\naction=metadata*) echo \"$in\" | %s;;\naction=status*) echo 'Status: OFF'; exit 2;;\n*) echo 'Success: Already OFF';;\nesac\n"
	p.must(os.WriteFile(p.FenceProgram(), fmt.Appendf(nil, program, sighted), 0o755))
}

// Fence devices that say off of whatever they are asked cannot be used, and say so. When
// all links are cut they confirm nothing on either side: nobody goes on alone, both run,
// and the pair is as before when the links are back.
func TestFencingByTheBlind(t *testing.T) {
	long(t)
	p := newPair(t, true, byFencing)
	primary, secondary := p.settle()
	p.blind()
	for _, node := range []string{primary, secondary} {
		p.status(node, "has no device that can be used", func(s *apiv1.Status) bool {
			return len(s.Fencing) == 1 && strings.Contains(s.Fencing[0].Because, "says OFF, and this node hears the other one")
		})
	}
	w := p.write()
	w.progress(steady)
	p.isolate(secondary)
	for _, node := range []string{primary, secondary} {
		p.status(node, "has confirmed nothing", func(s *apiv1.Status) bool {
			return len(s.Fences) > 0 && strings.Contains(s.Fences[0].Reason, "has not said on of the node")
		})
	}
	p.stays(secondary)
	for _, node := range []string{primary, secondary} {
		s, err := p.Status(p.ctx, node)
		p.must(err)
		for _, f := range s.Fences {
			if f.Outcome == apiv1.FenceConfirmed {
				t.Errorf("%s has confirmed that the other one is off, and it runs: %+v", node, f)
			}
		}
	}
	p.join(secondary)
	p.rejoined(secondary)
	w.progress(steady)
	w.stop()
	p.unmoved(primary)
	p.finish()
}
