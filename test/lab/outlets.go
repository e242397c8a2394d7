package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Outlets are what switches the power of nodes: those of a lab on this machine, those of
// another kind of lab, or boards that are reached over a network. They are safe for
// concurrent use. Errors about a node that there is not wrap ErrNoNode, those of a login
// that was refused ErrLogin.
type Outlets interface {
	// Nodes are those that can be switched.
	Nodes(ctx context.Context) ([]string, error)
	// Ready reports why a node could not be switched.
	Ready(ctx context.Context, node string) error
	// Power reports whether a node has power; an error where nobody knows.
	Power(ctx context.Context, node string) (on bool, err error)
	// Off returns when nothing of the node runs any more; at once if it was off.
	Off(ctx context.Context, node string) error
	// On returns when the node has been booted; at once if it was on.
	On(ctx context.Context, node string) error
}

// What is wrong with whoever asks Outlets.
var (
	ErrNoNode = errors.New("no node")
	ErrLogin  = errors.New("login denied")
)

// outlets are those of a lab on this machine.
type outlets struct {
	lab    *Lab
	within time.Duration // that a node has to be off
}

// Nodes implements Outlets.
func (o outlets) Nodes(context.Context) ([]string, error) { return o.lab.Nodes(), nil }

// place is the directory of a node.
func (o outlets) place(node string) (string, error) {
	_, err := o.lab.node(node)
	return filepath.Join(o.lab.dir, node), err
}

// Ready implements Outlets.
func (o outlets) Ready(_ context.Context, node string) error {
	dir, err := o.place(node)
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, outletFile))
	}
	return err
}

// Power implements Outlets. It waits a little where a node is just dying: what it was is
// not known then, and what it will be is.
func (o outlets) Power(ctx context.Context, node string) (on bool, err error) {
	dir, err := o.place(node)
	if err != nil {
		return false, err
	}
	var power string
	await(ctx, time.Second, func() bool {
		power, err = powerOf(dir)
		return err == nil || errors.Is(err, fs.ErrNotExist)
	})
	return power == powerOn, err
}

// Off implements Outlets.
func (o outlets) Off(ctx context.Context, node string) error {
	dir, err := o.place(node)
	if err != nil {
		return err
	}
	return switchOff(ctx, dir, o.within)
}

// On implements Outlets. It boots a node and starts its agent.
func (o outlets) On(_ context.Context, node string) error {
	if _, err := o.place(node); err != nil {
		return err
	}
	return fenceOn(o.lab.dir, node)
}

var errInside = errors.New("a node cannot switch another one on: halab power on NODE, from outside")

// fenceOn boots a node and starts its agent.
func fenceOn(dir, name string) error {
	if insideNode() {
		return errInside
	}
	release, err := Lock(dir)
	if err != nil {
		return err
	}
	defer release()
	l, err := Open(dir)
	if err != nil {
		return err
	}
	if l.state.Options.Tether {
		return errors.New("the nodes of this lab end with the program that booted them: let that one do it")
	}
	if power, err := powerOf(filepath.Join(dir, name)); err == nil && power == powerOn {
		return nil
	}
	return l.PowerOn(name)
}
