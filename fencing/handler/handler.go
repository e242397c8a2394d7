// Package handler is the fence device that is a program of the operator's. It
// answers with the exit codes of DRBD's fence-peer handlers, and handlers that
// were written for DRBD are understood.
package handler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hapair/fencing/device"
	"hapair/kernel/program"
)

// Config is one handler.
type Config struct {
	Self    string   // this node
	Command []string // the program's absolute path, and its arguments
}

// Handler is a program of the operator's.
//
// It runs in a session of its own with HAPAIR_NODE (whom to fence), HAPAIR_SELF
// (this node), HAPAIR_WHY, and for handlers written for DRBD, DRBD_PEER and
// DRBD_PEERS, beside PATH, HOME and LANG.
type Handler struct{ cfg Config }

// New judges cfg. It runs nothing.
func New(cfg Config) (*Handler, error) {
	if len(cfg.Command) == 0 || !filepath.IsAbs(cfg.Command[0]) {
		return nil, fmt.Errorf("fence handler %q: want the absolute path of a program, and its arguments", cfg.Command)
	}
	return &Handler{cfg}, nil
}

// Name is the program's.
func (h *Handler) Name() string { return "exec " + filepath.Base(h.cfg.Command[0]) }

// The exit codes of a fence-peer handler. Only 7 says that the node does not run:
// 3 and 4 tell of a DRBD disk, and a node whose DRBD disk is out of date may
// go on with ours; to be unreachable (5) is no proof of anything. A program that
// ends with 0 has not said which of them it means.
var meaning = map[int]struct {
	out  device.Outcome
	text string
}{
	0: {device.Unknown, "0 is none of a fence handler's: 7 would be right when the node is off"},
	3: {device.Unknown, "the peer's DRBD disk was inconsistent before; that does not keep the node from writing here"},
	4: {device.Unknown, "the peer's DRBD disk is outdated; that does not keep the node from writing here"},
	5: {device.Unknown, "the node could not be reached, which is no proof that it is off"},
	6: {device.Refused, "the node refuses, because it is Primary"},
	7: {device.Confirmed, "the node was switched off"},
}

// Off runs the program and judges its exit code.
func (h *Handler) Off(ctx context.Context, o device.Order) (device.Outcome, string) {
	env := append(program.Environment(), "HAPAIR_NODE="+o.Node, "HAPAIR_SELF="+h.cfg.Self, "HAPAIR_WHY="+o.Why, "DRBD_PEER="+o.Node, "DRBD_PEERS="+o.Node)
	end, err := program.Run(ctx, program.Command{Argv: h.cfg.Command, Env: env, Tied: true})
	out, text := device.Unknown, ""
	means, known := meaning[end.Code]
	switch {
	case err != nil:
		text = err.Error()
	case end.Signal != "":
		text = "ended by signal " + end.Signal
	case known:
		out, text = means.out, fmt.Sprintf("exit code %d: %s", end.Code, means.text)
	default:
		text = fmt.Sprintf("exit code %d is none of a fence handler's", end.Code)
	}
	if end.Output != "" {
		text += ": " + end.Output
	}
	return out, text
}

// Monitor looks whether the program is there.
func (h *Handler) Monitor(context.Context) error { return h.Check() }

// Check looks whether the program is there. It does not run it.
func (h *Handler) Check() error {
	p := h.cfg.Command[0]
	info, err := os.Stat(p)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New(p + " is not a program")
	}
	if err == nil {
		if e := unix.Access(p, unix.X_OK); e != nil {
			err = &os.PathError{Op: "access", Path: p, Err: e}
		}
	}
	if err != nil {
		return fmt.Errorf("fence handler: %w", err)
	}
	return nil
}
