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

// ClusterLabs' own fence_redfish against management boards that speak Redfish, over
// TLS and with a password: the agent of the Primary stands still, its board switches it off,
// and the Secondary takes over. A wrong password is a fence that is not confirmed, and
// nobody takes over by that.
func TestFencingByRedfish(t *testing.T) {
	long(t)
	const agent = "/usr/sbin/fence_redfish"
	if !exists(agent) {
		t.Skipf("needs %s; run: sudo apt-get install -y fence-agents", agent)
	}
	p := newPair(t, true, func(o *lab.Options) {
		byFencing(o)
		o.FenceDevice = fmt.Sprintf("{agent: fence_redfish, options: {ip: CLIENT, ipport: %d, ssl_insecure: 1, systems_uri: /redfish/v1/Systems/NODE, username: %s, password_file: %s}, timeout: 15s, monitor_interval: 5s}",
			lab.BoardsPort, lab.BoardsUser, lab.BoardsPasswordFile)
	})
	p.start(lab.Client, "halab", "--dir", p.Dir(), "boards")
	primary, secondary := p.settle()
	ready := func(node string, well bool) *apiv1.Status {
		t.Helper()
		s, err := p.Await(p.ctx, node, patience, func(s *apiv1.Status) bool {
			return len(s.Fencing) == 1 && s.Fencing[0].Ready == well && s.Fencing[0].Devices[0].Checked != nil
		})
		p.must(err)
		return s
	}
	ready(primary, true)
	ready(secondary, true)
	w := p.write()
	w.progress(steady)

	secret := filepath.Join(p.Dir(), secondary, "etc", filepath.Base(lab.BoardsPasswordFile))
	right, err := os.ReadFile(secret)
	p.must(err)
	p.must(os.WriteFile(secret, []byte("guess\n"), 0o600))
	if s := ready(secondary, false); strings.Contains(s.Fencing[0].Because, "guess") {
		t.Errorf("the password is shown: %s", s.Fencing[0].Because)
	}
	p.must(p.Pause(primary))
	p.must2(p.Await(p.ctx, secondary, patience, func(s *apiv1.Status) bool {
		return len(s.Fences) > 0 && s.Fences[len(s.Fences)-1].Outcome != apiv1.FenceConfirmed
	}))
	p.stays(secondary)
	p.must(os.WriteFile(secret, right, 0o600))
	p.takeover(secondary)
	p.goesOff(primary)
	p.fenceOutcome(secondary, "confirmed")
	w.progress(steady)
	p.onAgain(primary)
	w.stop()
	p.finish()
}
