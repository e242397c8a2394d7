package fenceagent

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes this program a fence agent when it is called like one.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "fence_fake" {
		os.Exit(fakeAgent())
	}
	os.Exit(m.Run())
}

const fakeMetadata = `<?xml version="1.0" ?>
<resource-agent name="fence_fake" shortdesc="a fake" >
<parameters>
	<parameter name="action" required="1"><content type="string" default="reboot" /></parameter>
	<parameter name="state" required="1"><content type="string" /></parameter>
	<parameter name="mode" required="0"><content type="string" /></parameter>
	<parameter name="plug" required="0" obsoletes="port"><content type="string" /></parameter>
	<parameter name="port" required="0" deprecated="1"><content type="string" /></parameter>
	<parameter name="password" required="0" obsoletes="passwd"><content type="string" /></parameter>
	<parameter name="passwd" required="0" deprecated="1"><content type="string" /></parameter>
</parameters>
<actions>
	<action name="on" automatic="0"/><action name="off" /><action name="reboot" /><action name="status" /><action name="monitor" />
</actions>
</resource-agent>`

// fakeAgent switches a file. It notes in the file calls what it was asked, and
// as which password.
func fakeAgent() int {
	opt := map[string]string{}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "=")
		opt[name] = value
	}
	action, dir, mode := opt["action"], opt["state"], opt["mode"]
	if action == "metadata" {
		fmt.Println(fakeMetadata)
		return 0
	}
	f, err := os.OpenFile(filepath.Join(dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 99
	}
	args := strings.Join(append(os.Args[1:], os.Environ()...), " ")
	if _, err := fmt.Fprintf(f, "%s password=%s leaks=%v\n", action, opt["password"], opt["password"] != "" && strings.Contains(args, opt["password"])); err != nil {
		return 99
	}
	return fakeAction(action, dir, mode, opt["password"])
}

func fakeAction(action, dir, mode, password string) int {
	off := filepath.Join(dir, "off")
	switch mode + "/" + action {
	case "deny/off":
		fmt.Fprintf(os.Stderr, "login with %s denied\n", password)
		return 3
	case "hang/off", "hang-status/status", "hang/monitor":
		time.Sleep(time.Hour)
	case "fail-once/off":
		if _, err := os.Stat(filepath.Join(dir, "failed")); err != nil {
			if os.WriteFile(filepath.Join(dir, "failed"), nil, 0o600) != nil {
				return 99
			}
			return 4
		}
	case "pretend/off":
		return 0
	case "args/status":
		fmt.Fprintln(os.Stderr, "usage")
		return 2
	case "mute/status":
		return 0
	case "odd/status":
		fmt.Println("Status: PoweringOff")
		return 2
	case "broken/monitor":
		return 1
	case "signal/off":
		if syscall.Kill(os.Getpid(), syscall.SIGKILL) != nil {
			return 99
		}
		time.Sleep(time.Hour)
	}
	switch action {
	case "off":
		if os.WriteFile(off, nil, 0o600) != nil {
			return 1
		}
	case "status":
		if _, err := os.Stat(off); err == nil {
			fmt.Println("Status: OFF")
			return 2
		}
		fmt.Println("Status: ON")
	}
	return 0
}
