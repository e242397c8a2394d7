package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
)

// fenceMetadata is what the fence agent says of itself.
const fenceMetadata = `<?xml version="1.0" ?>
<resource-agent name="fence_halab" shortdesc="switches the nodes of a lab" >
<longdesc>fence_halab switches the power of a node of a halab lab on this machine, or, with ip, of a board that is reached by Redfish over HTTP. On this machine on, and so reboot, work outside of the nodes only.</longdesc>
<parameters>
	<parameter name="action" unique="0" required="1">
		<content type="string" default="reboot" />
		<shortdesc lang="en">Fencing action</shortdesc>
	</parameter>
	<parameter name="dir" unique="0" required="0">
		<content type="string" default="/tmp/halab" />
		<shortdesc lang="en">Where the lab is</shortdesc>
	</parameter>
	<parameter name="ip" unique="0" required="0">
		<content type="string" />
		<shortdesc lang="en">Address of the boards</shortdesc>
	</parameter>
	<parameter name="ipport" unique="0" required="0">
		<content type="integer" default="80" />
		<shortdesc lang="en">TCP port of the boards</shortdesc>
	</parameter>
	<parameter name="username" unique="0" required="0">
		<content type="string" default="ha" />
		<shortdesc lang="en">Login name of the boards</shortdesc>
	</parameter>
	<parameter name="password" unique="0" required="0">
		<content type="string" />
		<shortdesc lang="en">Login password of the boards</shortdesc>
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
		<shortdesc lang="en">How long to wait for it to be off, or for an answer of the boards</shortdesc>
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
	fenceLogin      = 3
	fenceTimeout    = 5
	fenceWaitingOff = 7
)

// fenceDefaults are the options, and what they are where they are not given.
var fenceDefaults = map[string]string{"action": "reboot", "dir": "/tmp/halab", "plug": "", "power_timeout": "20",
	"ip": "", "ipport": "80", "username": BoardsUser, "password": ""}

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
	opt := maps.Clone(fenceDefaults)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		name, value, _ := strings.Cut(line, "=")
		if name == "port" {
			name = "plug"
		}
		_, known := opt[name]
		switch {
		case known:
			opt[name] = value
		case name != "nodename" && name != "" && !strings.HasPrefix(line, "#"):
			return nil, fmt.Errorf("unknown option %q", name)
		}
	}
	return opt, lines.Err()
}

// fenceOutlets are those that the options name.
func fenceOutlets(opt map[string]string) (Outlets, error) {
	within, err := seconds(opt["power_timeout"])
	if err != nil {
		return nil, fmt.Errorf("power_timeout: %w", err)
	}
	if opt["ip"] != "" {
		return newBoardsClient(opt["ip"], opt["ipport"], opt["username"], opt["password"], within), nil
	}
	l, err := Open(opt["dir"])
	return outlets{l, within}, err
}

func fenceAction(ctx context.Context, opt map[string]string, out io.Writer) (int, error) {
	o, err := fenceOutlets(opt)
	if err != nil {
		return fenceFailed, err
	}
	node := opt["plug"]
	switch opt["action"] {
	case "list":
		return fenceList(ctx, o, out)
	case "monitor":
		err := o.Ready(ctx, node)
		return codeOf(err, fenceFailed), err
	case "status":
		return fenceStatus(ctx, o, node, out)
	case "off":
		return fenceOff(ctx, o, node)
	case "on":
		err := o.On(ctx, node)
		return codeOf(err, fenceFailed), err
	case "reboot":
		if insideNode() {
			return fenceFailed, errInside
		}
		if code, err := fenceOff(ctx, o, node); err != nil {
			return code, err
		}
		err := o.On(ctx, node)
		return codeOf(err, fenceFailed), err
	}
	return fenceFailed, fmt.Errorf("unknown action %q", opt["action"])
}

// codeOf is the exit code for an error; failed is that of what is not known better.
func codeOf(err error, failed int) int {
	switch {
	case err == nil:
		return fenceOK
	case errors.Is(err, ErrLogin):
		return fenceLogin
	case errors.Is(err, ErrNoNode):
		return fenceFailed
	case errors.Is(err, context.DeadlineExceeded):
		return fenceTimeout
	}
	return failed
}

func fenceOff(ctx context.Context, o Outlets, node string) (int, error) {
	err := o.Off(ctx, node)
	return codeOf(err, fenceWaitingOff), err
}

func fenceList(ctx context.Context, o Outlets, out io.Writer) (int, error) {
	nodes, err := o.Nodes(ctx)
	for _, name := range nodes {
		fmt.Fprintf(out, "%s,\n", name) //nolint:errcheck // whoever asked has gone
	}
	return codeOf(err, fenceFailed), err
}

func fenceStatus(ctx context.Context, o Outlets, node string, out io.Writer) (int, error) {
	on, err := o.Power(ctx, node)
	if err != nil {
		return codeOf(err, fenceFailed), err
	}
	if !on {
		fmt.Fprintln(out, "Status: OFF") //nolint:errcheck // whoever asked has gone
		return fenceStatusOff, nil
	}
	fmt.Fprintln(out, "Status: ON") //nolint:errcheck // whoever asked has gone
	return fenceOK, nil
}
