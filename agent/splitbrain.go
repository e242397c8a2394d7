package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/mirror"
	"hapair/mirror/aside"
	"hapair/mirror/front"
	"hapair/mirror/genid"
)

// asideConfig says where what this node gives up in a split brain is kept.
func (r *resource) asideConfig() mirror.AsideConfig {
	limit, off := r.conf.SplitBrainKeep.Limit()
	return mirror.AsideConfig{Dir: filepath.Join(r.a.cfg.StateDir, "split-brain", r.name), Off: off, Bytes: limit, Free: config.KeepFree, View: r.viewOf}
}

// viewOf makes the front end that offers what is kept of a volume.
func (r *resource) viewOf(volume uint16) (front.Frontend, error) {
	f, _, err := front.Choose(string(r.conf.Frontend), front.Options{Resource: r.name + ".split-brain", Volume: int(volume), DeviceDir: r.a.cfg.DeviceDir,
		FuseDir: filepath.Join(r.a.cfg.RunDir, "fuse"), SocketDir: filepath.Join(r.a.cfg.RunDir, "export"), Log: r.a.log})
	return f, err //nolint:wrapcheck // it says what and where
}

func (r *resource) keptStatus() (out []apiv1.KeptImage) {
	for _, k := range r.mirror.Kept() {
		x := apiv1.KeptImage{Volume: int(k.Volume), State: string(k.Phase), Why: k.Why, GivenUp: k.Taken, Peer: k.Peer, Generation: genid.ID(k.Generation).String(),
			SizeBytes: k.SizeBytes, KeptBlocks: k.Blocks, UsedBytes: k.UsedBytes, Device: k.Device}
		if k.Since > 0 {
			t := time.Unix(k.Since, 0).UTC()
			x.Since = &t
		}
		out = append(out, x)
	}
	return out
}

// keeps reports whether something is kept of a resource.
func (a *agent) keeps(name string) bool {
	r := a.res[name]
	return r != nil && len(r.mirror.Kept()) > 0
}

// SplitBrain does something with what this node gave up.
func (b *backend) SplitBrain(ctx context.Context, name string, q apiv1.SplitBrainRequest) (apiv1.Changed, error) {
	var text string
	c, err := b.change(ctx, name, "split-brain "+q.Action, func(r *resource) (err error) {
		switch q.Action {
		case apiv1.SplitMount:
			err = r.mirror.ShowKept(ctx)
			text = r.mountText()
		case apiv1.SplitUnmount:
			err = r.mirror.HideKept(ctx)
			text = name + ": what was given up is not offered any more, and is kept"
		case apiv1.SplitUndo:
			err = r.mirror.Undo(ctx)
			text = fmt.Sprintf("%s: %s has again what it gave up, and is out of the in-sync set; %s has its own. hactl explain %s tells how to keep either", name, b.a.self, r.peer, name)
		case apiv1.SplitDrop:
			err = r.mirror.DropKept(ctx)
			text = name + ": nothing of a split brain is kept any more"
		default:
			return &apiv1.Problem{Code: apiv1.CodeBadRequest, Text: fmt.Sprintf("action %q: want %s, %s, %s or %s", q.Action, apiv1.SplitMount, apiv1.SplitUnmount, apiv1.SplitUndo, apiv1.SplitDrop)}
		}
		return r.keptProblem(err)
	})
	c.Text = text
	return c, err
}

// keptProblem is why it cannot be done.
func (r *resource) keptProblem(err error) error {
	var busy *front.BusyError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &busy):
		return &apiv1.Problem{Code: apiv1.CodeInUse, Text: err.Error(), Hint: "umount it first"}
	case errors.Is(err, aside.ErrNone):
		return &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("%s keeps nothing that it gave up of %s", r.a.self, r.name), Hint: "hactl split-brain list, on the node that gave up"}
	}
	return &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: "hactl split-brain show " + r.name}
}

// mountText says where it is offered, and how it is looked at.
func (r *resource) mountText() string {
	var lines []string
	for _, k := range r.mirror.Kept() {
		device := k.Device
		if strings.HasPrefix(device, "nbd") {
			lines = append(lines, fmt.Sprintf("volume %d as it was given up: %s, read-only (as with nbdcopy, or qemu-nbd --read-only)", k.Volume, device))
			continue
		}
		lines = append(lines, fmt.Sprintf("volume %d as it was given up: %s, read-only; to look into it: mount -o ro %s DIR (ext4: -o ro,noload; xfs: -o ro,norecovery,nouuid)", k.Volume, device, device))
	}
	return strings.Join(lines, "\n")
}
