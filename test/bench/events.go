package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// event is what happens to the Primary.
type event struct {
	key, title string
	moves      bool // another node is Primary then
	mounted    bool // only where something writes to the volume
	do         func(t *theatre, ctx context.Context, primary string) (act, error)
}

var events = []event{
	{key: "power-loss", title: "power loss of the Primary", moves: true, do: (*theatre).powerLoss},
	{key: "agent-killed", title: "the Primary's agent is killed", moves: true, do: (*theatre).agentKilled},
	{key: "standstill", title: "the Primary's agent stands still", moves: true, do: (*theatre).standstill},
	{key: "cut-off", title: "all cables of the Primary are pulled", moves: true, do: (*theatre).cutOff},
	{key: "disk", title: "the Primary's disk fails", mounted: true, do: (*theatre).diskFails},
	{key: "switchover", title: "switchover", moves: true, do: (*theatre).switchover},
}

func eventKeys() (keys []string) {
	for _, e := range events {
		keys = append(keys, e.key)
	}
	return keys
}

// lateMax is by when an outage has come that does not come at once: those who stand
// still or are cut off have served until their lease ran out.
const lateMax = 3 * time.Second

// act is one event and what came of it.
type act struct {
	began  time.Time
	outage outage
	stages stages
}

// theatre is a lab in which things happen.
type theatre struct {
	lab   *lab.Lab
	scene scene
	halab string
	probe *probe
}

// serve starts the record service on nodes where no agent starts it.
func (t *theatre) serve(nodes ...string) error {
	if t.scene.mount {
		return nil
	}
	for _, n := range nodes {
		// Without pipes: the server would inherit them and keep them open.
		cmd := exec.Command(t.halab, "recordd", "start", "--file", "/run/records")
		if err := t.lab.Enter(n, cmd); err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("start the record service on %s: %w", n, err)
		}
	}
	return nil
}

// settle waits until both copies are current and everything runs, and returns
// the Primary.
func (t *theatre) settle(ctx context.Context) (string, error) {
	var primary string
	for _, n := range t.lab.Data() {
		r, err := t.lab.AwaitResource(ctx, n, settleMax, func(r *apiv1.Resource) bool {
			return r.Primary != "" && !r.Suspect && len(r.InSync) == 2 && r.DiskState == "UpToDate" && len(r.Peers) == 1 && r.Peers[0].Replication == "Established"
		})
		if err != nil {
			return "", err
		}
		primary = r.Primary
	}
	_, err := t.lab.AwaitResource(ctx, primary, settleMax, func(r *apiv1.Resource) bool {
		idle := func(s apiv1.Service) bool { return s.State != apiv1.ServiceRunning }
		return r.Role == "Primary" && !slices.ContainsFunc(r.Services, idle)
	})
	return primary, err
}

// strikes lets something happen, waits for the client to be served again, and mends
// it.
func (t *theatre) strikes(ctx context.Context, late time.Duration, strike, mend func() error) (act, error) {
	a := act{began: time.Now()}
	if err := strike(); err != nil {
		return a, err
	}
	var err error
	if a.outage, err = t.probe.outageSince(ctx, a.began, time.Now().Add(late)); err != nil {
		return a, errors.Join(err, mend())
	}
	return a, mend()
}

func (t *theatre) powerLoss(ctx context.Context, primary string) (act, error) {
	return t.strikes(ctx, 0, func() error { return t.lab.PowerOff(primary) }, func() error {
		if err := t.lab.PowerOn(primary); err != nil {
			return err
		}
		if err := t.lab.AwaitAPI(ctx, primary); err != nil {
			return err
		}
		return t.serve(primary)
	})
}

// agentKilled leaves the agent dead until the other node serves: whoever supervises
// it may start it before, and it takes over no sooner than anybody else.
func (t *theatre) agentKilled(ctx context.Context, primary string) (act, error) {
	return t.strikes(ctx, 0, func() error { return t.lab.Kill(primary) }, func() error {
		if err := t.lab.Start(primary); err != nil {
			return err
		}
		return t.lab.AwaitAPI(ctx, primary)
	})
}

func (t *theatre) standstill(ctx context.Context, primary string) (act, error) {
	return t.strikes(ctx, lateMax, func() error { return t.lab.Pause(primary) }, func() error { return t.lab.Resume(primary) })
}

func (t *theatre) cutOff(ctx context.Context, primary string) (act, error) {
	all := func(do func(node, path string) error) func() error {
		return func() error { return errors.Join(do(primary, lab.LAN), do(primary, lab.Crossover)) }
	}
	return t.strikes(ctx, lateMax, all(t.lab.Cut), all(t.lab.Heal))
}

// diskFails: the Primary stays, and works through the other's disk.
func (t *theatre) diskFails(ctx context.Context, primary string) (act, error) {
	return t.strikes(ctx, lateMax, func() error { return t.lab.Fault(ctx, primary, "err=io") }, func() error {
		_, err := t.lab.AwaitResource(ctx, primary, settleMax, func(r *apiv1.Resource) bool { return r.DiskState == "Failed" })
		if err != nil {
			return err
		}
		if err := t.lab.Fault(ctx, primary, "clear"); err != nil {
			return err
		}
		return t.repeat(ctx, primary, apiv1.VerbAttach, apiv1.AttachRequest{})
	})
}

func (t *theatre) switchover(ctx context.Context, primary string) (act, error) {
	var a act
	err := t.repeat(ctx, primary, "switchover", apiv1.SwitchoverRequest{}, &a.began)
	if err == nil {
		a.outage, err = t.probe.outageSince(ctx, a.began, time.Now())
	}
	return a, err
}

// repeat asks for something, again while it is refused: a node may not know yet what
// its peer says of itself. The instants are set to that at which it was asked last.
func (t *theatre) repeat(ctx context.Context, node, verb string, req any, asked ...*time.Time) error {
	path := apiv1.PathResources + t.lab.Resource() + "/" + verb
	for refused := 0; ; refused++ {
		for _, at := range asked {
			*at = time.Now()
		}
		err := t.lab.Call(ctx, node, http.MethodPost, path, req, new(json.RawMessage))
		var no *apiv1.Problem
		if err == nil || !errors.As(err, &no) || refused == refusalsMax {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(refusalPause):
		}
	}
}
