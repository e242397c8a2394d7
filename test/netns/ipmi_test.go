package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// bmcs are the controllers of a pair's nodes.
type bmcs struct {
	*pair
	wishes chan string // nodes whose power on was asked for; the test switches them on
}

// newBMCPair brings a pair up whose fence device is ClusterLabs' own fence_ipmilan.
func newBMCPair(t *testing.T) *bmcs {
	t.Helper()
	for _, program := range []string{"/usr/sbin/fence_ipmilan", "/usr/bin/ipmitool", "/usr/bin/ipmi_sim"} {
		if !exists(program) {
			t.Skipf("needs %s; run: sudo apt-get install -y fence-agents ipmitool openipmi", program)
		}
	}
	p := newPair(t, true, func(o *lab.Options) {
		byFencing(o)
		o.FenceDevice = fmt.Sprintf("{agent: fence_ipmilan, options: {ip: CLIENT, ipport: BMCPORT, lanplus: 1, cipher: 3, privlvl: operator, username: %s, password_file: %s, power_timeout: 4}, timeout: 12s, monitor_interval: 5s}",
			lab.BMCUser, lab.BMCPasswordFile)
	})
	b := &bmcs{p, make(chan string)}
	ctx, cancel := context.WithCancel(p.ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- p.ServeBMCs(ctx, func(node string) error {
			select {
			case b.wishes <- node:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

// ready waits until a node's device was found fit, or not, and returns why not.
func (b *bmcs) ready(node string, well bool) (because string) {
	b.t.Helper()
	b.must2(b.Await(b.ctx, node, patience, func(s *apiv1.Status) bool {
		if len(s.Fencing) != 1 || s.Fencing[0].Ready != well || s.Fencing[0].Devices[0].Checked == nil {
			return false
		}
		because = s.Fencing[0].Because
		return true
	}))
	b.say("%s: ready %t: %s", node, well, because)
	return because
}

// ask runs ipmitool against a node's controller, as an operator does.
func (b *bmcs) ask(node, action string) (string, error) {
	return b.Run(b.ctx, lab.Client, "ipmitool", "-I", "lanplus", "-C", "3", "-L", "OPERATOR", "-H", b.Address(lab.Client, lab.LAN), "-p", strconv.Itoa(b.BMCPort(node)),
		"-U", lab.BMCUser, "-f", lab.BMCPasswordFile, "chassis", "power", action)
}

func (b *bmcs) power(node, want string) {
	b.t.Helper()
	if out, err := b.ask(node, "status"); err != nil || !strings.Contains(out, "Chassis Power is "+want) {
		b.t.Errorf("%s: want %s: %v: %s", node, want, err, out)
	}
}

// onAgain has a node's controller switch it on.
func (b *bmcs) onAgain(node string) {
	b.t.Helper()
	b.power(node, "off")
	asked := make(chan error, 1)
	go func() {
		_, err := b.ask(node, "on")
		asked <- err
	}()
	select {
	case wish := <-b.wishes:
		if wish != node {
			b.t.Fatalf("the power of %s is wanted, and %s was asked", wish, node)
		}
		b.must(b.PowerOn(node))
		b.must(<-asked)
	case err := <-asked:
		b.t.Fatalf("nobody wants %s to be on: %v", node, err)
	}
	b.power(node, "on")
	b.rejoined(node)
}

// fails waits until a fence by node has ended unconfirmed, and returns what was said.
func (b *bmcs) fails(node string) (reason string) {
	b.t.Helper()
	b.must2(b.Await(b.ctx, node, patience, func(s *apiv1.Status) bool {
		n := len(s.Fences)
		if n == 0 || s.Fences[n-1].Outcome == apiv1.FenceConfirmed {
			return false
		}
		reason = s.Fences[n-1].Reason
		return true
	}))
	b.say("%s: the fence failed: %s", node, reason)
	return reason
}

// programsGone waits until no program of a fence runs on a node.
func (b *bmcs) programsGone(node string) {
	b.t.Helper()
	b.eventually("no program of a fence runs on "+node, func() error {
		out, err := b.Run(b.ctx, node, "sh", "-c", `grep -alE "^(ipmitool|fence_ipmilan)$" /proc/[0-9]*/comm 2>/dev/null; true`)
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}
		return err
	})
}

// ClusterLabs' own fence_ipmilan against controllers that speak IPMI 2.0 over LAN: a
// wrong password is a fence that is not confirmed, and so is a controller that cannot be
// reached; nobody takes over by that. With the right one the Primary, whose agent stands
// still, is switched off, and the Secondary goes on. Once more, with a Primary that has
// lost its power.
func TestFencingByIPMI(t *testing.T) {
	long(t)
	b := newBMCPair(t)
	primary, secondary := b.settle()
	b.ready(primary, true)
	b.ready(secondary, true)
	b.power(primary, "on")
	w := b.write()
	w.progress(steady)

	secret := filepath.Join(b.Dir(), secondary, "etc", filepath.Base(lab.BMCPasswordFile))
	right, err := os.ReadFile(secret)
	b.must(err)
	b.must(os.WriteFile(secret, []byte("guess\n"), 0o600))
	unfit := b.ready(secondary, false)
	b.must(b.Pause(primary))
	for _, said := range []string{unfit, b.fails(secondary)} {
		if !strings.Contains(said, "look at username, password") || strings.Contains(said, "guess") {
			t.Errorf("a wrong password: %s", said)
		}
	}
	b.stays(secondary)
	b.power(primary, "on")
	b.must(os.WriteFile(secret, right, 0o600))
	b.takeover(secondary)
	b.power(primary, "off")
	b.fenceOutcome(secondary, "confirmed")
	w.progress(steady)
	b.onAgain(primary)
	w.progress(steady)

	primary, secondary = secondary, primary
	b.ready(secondary, true)
	b.must(b.Cut(lab.Client, lab.LAN))
	b.must(b.PowerOff(primary))
	if said := b.fails(secondary); !strings.Contains(said, "Connection timed out") {
		t.Errorf("a controller that cannot be reached: %s", said)
	}
	b.ready(secondary, false)
	b.stays(secondary)
	b.must(b.Heal(lab.Client, lab.LAN))
	b.takeover(secondary)
	b.fenceOutcome(secondary, "confirmed")
	w.progress(steady)
	b.onAgain(primary)
	b.programsGone(primary)
	b.programsGone(secondary)
	w.stop()
	b.finish()
}
