package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// fenceMetadata is what the fence agent says of itself.
const fenceMetadata = `<?xml version="1.0" ?>
<resource-agent name="fence_halab" shortdesc="switches the nodes of a lab" >
<longdesc>fence_halab switches the power of a node of a halab lab. On, and so reboot, work outside of the nodes only.</longdesc>
<parameters>
	<parameter name="action" unique="0" required="1">
		<content type="string" default="reboot" />
		<shortdesc lang="en">Fencing action</shortdesc>
	</parameter>
	<parameter name="dir" unique="0" required="0">
		<content type="string" default="/tmp/halab" />
		<shortdesc lang="en">Where the lab is</shortdesc>
	</parameter>
	<parameter name="plug" unique="0" required="1" obsoletes="port">
		<content type="string" />
		<shortdesc lang="en">Name of the node</shortdesc>
	</parameter>
	<parameter name="port" unique="0" required="1" deprecated="1">
		<content type="string" />
		<shortdesc lang="en">Name of the node</shortdesc>
	</parameter>
	<parameter name="power_timeout" unique="0" required="0">
		<content type="second" default="20" />
		<shortdesc lang="en">How long to wait for it to be off</shortdesc>
	</parameter>
</parameters>
<actions>
	<action name="on" automatic="0"/>
	<action name="off" />
	<action name="reboot" />
	<action name="status" />
	<action name="monitor" />
	<action name="list" />
	<action name="metadata" />
</actions>
</resource-agent>
`

// The exit codes of a fence agent.
const (
	fenceOK         = 0
	fenceFailed     = 1
	fenceStatusOff  = 2 // of status
	fenceWaitingOff = 7
)

// fenceDefaults are the options that are not given.
var fenceDefaults = map[string]string{"action": "reboot", "dir": "/tmp/halab", "power_timeout": "20"}

// FenceAgent is the lab's fence agent: it reads options from in, as fence agents
// do, and returns the exit code.
func FenceAgent(ctx context.Context, in io.Reader, out, log io.Writer) int {
	opt, err := fenceOptions(in)
	if err == nil && opt["action"] == "metadata" {
		fmt.Fprint(out, fenceMetadata) //nolint:errcheck // whoever asked has gone
		return fenceOK
	}
	code := fenceFailed
	if err == nil {
		code, err = fenceAction(ctx, opt, out)
	}
	if err != nil {
		fmt.Fprintln(log, "fence_halab:", err) //nolint:errcheck // whoever asked has gone
	}
	return code
}

// fenceOptions reads lines of option=value. What is not known is an error: what
// others only warn of has switched the wrong machine off before.
func fenceOptions(in io.Reader) (map[string]string, error) {
	opt := map[string]string{}
	for k, v := range fenceDefaults {
		opt[k] = v
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		name, value, _ := strings.Cut(line, "=")
		switch name {
		case "action", "dir", "plug", "power_timeout":
			opt[name] = value
		case "port":
			opt["plug"] = value
		case "nodename", "":
		default:
			if !strings.HasPrefix(line, "#") {
				return nil, fmt.Errorf("unknown option %q", name)
			}
		}
	}
	return opt, lines.Err()
}

func fenceAction(ctx context.Context, opt map[string]string, out io.Writer) (int, error) {
	within, err := seconds(opt["power_timeout"])
	if err != nil {
		return fenceFailed, fmt.Errorf("power_timeout: %w", err)
	}
	l, err := Open(opt["dir"])
	if err != nil {
		return fenceFailed, err
	}
	if opt["action"] == "list" {
		for _, name := range l.Nodes() {
			fmt.Fprintf(out, "%s,\n", name) //nolint:errcheck // whoever asked has gone
		}
		return fenceOK, nil
	}
	if _, err := l.node(opt["plug"]); err != nil {
		return fenceFailed, err
	}
	node := filepath.Join(l.dir, opt["plug"])
	switch opt["action"] {
	case "monitor":
		_, err := os.Stat(filepath.Join(node, outletFile))
		return codeOf(err, fenceFailed), err
	case "status":
		return fenceStatus(node, out)
	case "off":
		err := switchOff(ctx, node, within)
		return codeOf(err, fenceWaitingOff), err
	case "on":
		err := fenceOn(l.dir, opt["plug"])
		return codeOf(err, fenceFailed), err
	case "reboot":
		if insideNode() {
			return fenceFailed, errInside
		}
		if err := switchOff(ctx, node, within); err != nil {
			return fenceWaitingOff, err
		}
		err := fenceOn(l.dir, opt["plug"])
		return codeOf(err, fenceFailed), err
	}
	return fenceFailed, fmt.Errorf("unknown action %q", opt["action"])
}

func codeOf(err error, failed int) int {
	if err != nil {
		return failed
	}
	return fenceOK
}

// fenceStatus waits a little where a node is just dying: what it was is not
// known then, and what it will be is.
func fenceStatus(node string, out io.Writer) (int, error) {
	var power string
	var err error
	await(context.Background(), time.Second, func() bool {
		power, err = powerOf(node)
		return err == nil || errors.Is(err, fs.ErrNotExist)
	})
	if err != nil {
		return fenceFailed, err
	}
	fmt.Fprintf(out, "Status: %s\n", strings.ToUpper(power)) //nolint:errcheck // whoever asked has gone
	if power == powerOff {
		return fenceStatusOff, nil
	}
	return fenceOK, nil
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
