package main

import (
	"context"
	"fmt"
	"time"

	"hapair/agent/api"
	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/fencing"
	"hapair/fencing/device"
	"hapair/fencing/fenceagent"
	"hapair/heartbeat"
	"hapair/heartbeat/detect"
)

// startFencing makes the room that fences the other node, and begins to look
// whether its devices could be used. Only arbitration by fencing has one.
func (a *agent) startFencing(context.Context) error {
	if a.cfg.Arbitration != config.ArbitrateFencing || a.witness() {
		return nil
	}
	cfg, err := fencingConfig(a.cfg, a.self, peerDevices{pills: a.pills, heard: fenceagent.Heard{Last: a.peerRan, Within: max(time.Second, 3*a.cfg.Timing.Renew)}})
	if err != nil {
		return err
	}
	cfg.Log, cfg.OnReport = a.log, a.fenced
	if a.fence, err = fencing.New(cfg); err != nil {
		return err
	}
	end := background(a.fence.Run)
	a.onStop("fencing", func(context.Context) error {
		end()
		a.fence.Close()
		return nil
	})
	return nil
}

// peerDevices is what devices for the other node are made with.
type peerDevices struct {
	pills func(node string, d *config.FenceDevice) device.Device
	heard fenceagent.Heard
}

// peerRan is when the other node certainly ran last, by the ledger: it has since
// answered what was sent then.
func (a *agent) peerRan() time.Time {
	at, ok := a.ledger.Certain()
	if !ok || a.ledger.Alone() { // and then it says of this node alone
		return time.Time{}
	}
	return time.Now().Add(at - a.clock())
}

// fencingConfig has the devices for every other node.
func fencingConfig(cfg *config.Config, self string, with peerDevices) (fencing.Config, error) {
	out := fencing.Config{Self: self, Nodes: map[string][]fencing.Level{}}
	for _, node := range cfg.NodeNames() {
		if node == self {
			continue
		}
		names := map[string]bool{}
		for _, devices := range cfg.FenceLevels(node) {
			var level fencing.Level
			for i := range devices {
				b, err := fenceDevice(node, &devices[i], self, with)
				if err != nil {
					return out, fmt.Errorf("fencing of %s: %w", node, err)
				}
				if !devices[i].Manual { // there is one operator, and the room knows him as such
					b.Device = apart(names, b.Device)
				}
				level = append(level, b)
			}
			out.Nodes[node] = append(out.Nodes[node], level)
		}
	}
	return out, nil
}

// called is a device by a name that no other one of its node has.
type called struct {
	device.Device
	name string
}

// Name is the device's own, with a number where that is taken.
func (c called) Name() string { return c.name }

// apart gives d a name that is not among those taken, and adds it to them: status,
// events and metrics tell devices apart by nothing else.
func apart(taken map[string]bool, d device.Device) device.Device {
	name := d.Name()
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s #%d", d.Name(), n)
	}
	taken[name] = true
	if name == d.Name() {
		return d
	}
	return called{d, name}
}

func fenceDevice(node string, d *config.FenceDevice, self string, with peerDevices) (b fencing.Bound, err error) {
	b = fencing.Bound{Timeout: d.Timeout, Monitor: d.MonitorInterval}
	switch {
	case d.SBD != "":
		b.Device = with.pills(node, d)
	case d.Manual:
		b.Device, b.Timeout = fencing.Manual(), 0
	default:
		b.Device, err = d.Device(self, with.heard)
	}
	return b, err
}

// fenced tells everybody of a fence that ended, and of an operator's word.
func (a *agent) fenced(r fencing.Report) {
	a.publish(apiv1.EventFence, "", fmt.Sprintf("fence of %s: %s: %s", r.Node, r.Outcome, r.Reason),
		map[string]string{"node": r.Node, "outcome": r.Outcome.String(), "device": r.Device, "took": r.Took.String()})
}

// metAgain tells the room who is heard, which voids what was said of it before.
func (a *agent) metAgain(s heartbeat.Snapshot) {
	if a.fence == nil {
		return
	}
	for name, n := range s.Nodes {
		switch n.State {
		case detect.Alive:
			a.fence.Met(name)
		case detect.Dead:
			a.fence.Parted(name)
		case detect.Suspect: // it may be heard again without having been away
		}
	}
}

func noFencing(a *agent) error {
	return &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("arbitration is %s: this node has no fence devices", a.cfg.Arbitration),
		Hint: "switch the node off by hand, then hactl promote RES --force on the survivor"}
}

// cannotFence says why a node could not be fenced now, "" when it could.
func (a *agent) cannotFence(node string) string {
	err := noFencing(a)
	if a.fence != nil {
		err = a.fence.Ready(node)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// Fence switches the other node off.
func (b *backend) Fence(ctx context.Context, q apiv1.FenceRequest) (apiv1.Changed, error) {
	a := b.a
	if a.fence == nil {
		return apiv1.Changed{}, noFencing(a)
	}
	if err := a.mayFence(q); err != nil {
		return apiv1.Changed{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.fenceWait(q))
	defer cancel()
	why := "asked by " + operator(ctx)
	if q.Reason != "" {
		why += ": " + q.Reason
	}
	a.event(apiv1.EventOperator, "", "fence "+q.Node+", "+why)
	a.fenceCounts(why)
	r := a.fence.Fence(ctx, q.Node, why)
	text := fmt.Sprintf("fence of %s: %s: %s", q.Node, r.Outcome, r.Reason)
	switch {
	case r.Outcome == fencing.Unknown && ctx.Err() != nil:
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeTimeout, Text: text,
			Hint: fmt.Sprintf("it may still strike: see hactl status; hactl fence %s --wait TIME waits longer", q.Node)}
	case r.Outcome != fencing.Confirmed:
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeRefused, Text: text,
			Hint: fmt.Sprintf("make sure by hand that %s is off, then hactl fence-confirm %s --i-have-checked", q.Node, q.Node)}
	}
	return apiv1.Changed{Node: q.Node, Was: "unknown", Now: "off", TookMS: r.Took.Milliseconds(), Text: text}, nil
}

// fenceWait is how long who asks for a fence waits for its end: as long as he says, or
// as the devices may take, but no less than for any other change.
func (a *agent) fenceWait(q apiv1.FenceRequest) time.Duration {
	if q.WaitMS > 0 {
		return time.Duration(q.WaitMS) * time.Millisecond
	}
	return max(api.DefaultWait, a.cfg.FenceTakes(q.Node)+fenceSlack)
}

// mayFence refuses this node, nodes that are none, and a live one without force.
func (a *agent) mayFence(q apiv1.FenceRequest) error {
	if a.cfg.Node(q.Node) == nil || q.Node == a.self {
		return &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("%q is not the other node; this is %s of %q", q.Node, a.self, a.cfg.NodeNames())}
	}
	if n, ok := a.heart.Snapshot().Nodes[q.Node]; ok && (n.State == detect.Alive || n.State == detect.Suspect) && !q.Force {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: q.Node + " is " + n.State.String() + ", and would be switched off under what runs there",
			Hint: fmt.Sprintf("hactl standby %s moves it in order; hactl fence %s --force switches it off", q.Node, q.Node)}
	}
	return nil
}

// FenceConfirm takes an operator's word that the other node is off.
func (b *backend) FenceConfirm(ctx context.Context, q apiv1.FenceConfirmRequest) (apiv1.Changed, error) {
	a := b.a
	if a.fence == nil {
		return apiv1.Changed{}, noFencing(a)
	}
	if !q.IHaveChecked {
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("if %s still runs, both nodes may write, and the copies diverge", q.Node),
			Hint: fmt.Sprintf("look at the machine itself; when it is off: hactl fence-confirm %s --i-have-checked", q.Node)}
	}
	began := time.Now()
	if n, ok := a.heart.Snapshot().Nodes[q.Node]; ok && n.State == detect.Alive {
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("%s is alive: this node hears it", q.Node), Hint: "hactl status"}
	}
	if err := a.fence.Confirm(q.Node, operator(ctx)); err != nil {
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: "hactl status says whether a fence waits"}
	}
	a.event(apiv1.EventOperator, "", fmt.Sprintf("%s confirms that %s is off", operator(ctx), q.Node))
	a.fenceCounts("confirmed by " + operator(ctx))
	return apiv1.Changed{Node: q.Node, Was: "unknown", Now: "off", TookMS: time.Since(began).Milliseconds(),
		Text: fmt.Sprintf("%s counts as off, by the word of %s", q.Node, operator(ctx))}, nil
}

// operator is who asked, by the kernel's word.
func operator(ctx context.Context) string {
	c, ok := api.CallerFrom(ctx)
	if !ok {
		return "an operator"
	}
	return fmt.Sprintf("uid %d", c.UID)
}

// fencingStatus is what the status says of it.
func (a *agent) fencingStatus() (nodes []apiv1.Fencing, fences []apiv1.Fence) {
	if a.fence == nil {
		return nil, nil
	}
	s := a.fence.Status()
	for i := range s.Nodes {
		nodes = append(nodes, fencingOf(&s.Nodes[i], a.cfg.FenceDelay(s.Nodes[i].Node)))
	}
	for _, r := range s.History {
		fences = append(fences, apiv1.Fence{Node: r.Node, Outcome: r.Outcome.String(), Device: r.Device, Reason: r.Reason, Since: r.Began.UTC(), TookMS: r.Took.Milliseconds()})
	}
	return nodes, fences
}

func fencingOf(n *fencing.NodeStatus, delay time.Duration) apiv1.Fencing {
	out := apiv1.Fencing{Node: n.Node, Ready: n.Ready == nil, Because: errText(n.Ready), TakesMS: n.Takes.Milliseconds(), DelayMS: delay.Milliseconds(),
		ConfirmedTotal: n.Ended[fencing.Confirmed], RefusedTotal: n.Ended[fencing.Refused], UnknownTotal: n.Ended[fencing.Unknown]}
	for _, d := range n.Devices {
		x := apiv1.FenceDevice{Name: d.Name, Level: d.Level, Usable: d.Err == nil, Because: errText(d.Err)}
		if !d.Checked.IsZero() {
			at := d.Checked.UTC()
			x.Checked = &at
		}
		out.Devices = append(out.Devices, x)
	}
	if f := n.Fence; f != nil {
		out.UnderWay = &apiv1.FenceUnderWay{Because: f.Why, Since: f.Began.UTC(), Level: f.Level, Failed: f.Failed, WaitsForOperator: f.Waiting}
	}
	return out
}
