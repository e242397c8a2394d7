package fenceagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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

// fakeProgram is a fence agent that switches a file. It notes in the file calls
// what it was asked, and as which password.
const fakeProgram = `#!/bin/sh
while IFS= read -r line; do
	name=${line%%=*} value=${line#*=}
	case $name in action) action=$value;; state) state=$value;; mode) mode=$value;; password) password=$value;; esac
done
[ $action = metadata ] && { cat <<END
` + fakeMetadata + `
END
exit; }
leaks=false
[ -n "$password" ] && case "$* $(env)" in *"$password"*) leaks=true;; esac
echo "$action password=$password leaks=$leaks" >> $state/calls
case $mode/$action in
deny/off) echo "login with $password denied" >&2; exit 3;;
hang/off|hang-status/status|hang/monitor) sleep 3600;;
fail-once/off) [ -e $state/failed ] || { : > $state/failed; exit 4; };;
pretend/off|mute/status) exit 0;;
args/status) echo usage >&2; exit 2;;
odd/status) echo "Status: PoweringOff"; exit 2;;
blind/status) echo "Status: OFF"; exit 2;;
mute-after/status) [ -e $state/off ] && exit 0;;
hang-after/status) [ -e $state/off ] && sleep 3600;;
deny-status/status) echo denied >&2; exit 3;;
broken/monitor) exit 1;;
signal/off) kill -9 $$;;
esac
case $action in
off) : > $state/off;;
status) [ -e $state/off ] && { echo "Status: OFF"; exit 2; }; echo "Status: ON";;
esac
exit 0
`

// fake returns the configuration of a fake agent, and what it was asked.
func fake(t *testing.T, mode string) (Config, func() []string) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "fence_fake")
	if err := os.WriteFile(name, []byte(fakeProgram), 0o700); err != nil {
		t.Fatal(err)
	}
	calls := func() []string {
		b, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	}
	return Config{Agent: name, Options: map[string]string{"state": dir, "mode": mode, "plug": "beta"}}, calls
}
