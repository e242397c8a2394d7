package service

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const goldenMetadata = `<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="web" version="1.0">
<version>1.1</version>
<longdesc lang="en">&lt;serves&gt;</longdesc>
<parameters>
<parameter name="root" unique="0" required="1"><content type="string"/></parameter>
<parameter name="port" required="1"><content type="integer" default="80"/></parameter>
<parameter name="old" required="true"><deprecated/><content type="string"/></parameter>
</parameters>
<actions>
<action name="start" timeout="120s"/>
<action name="stop" timeout="60"/>
<action name="monitor" depth="0" timeout="a while" interval="10s"/>
<action name="meta-data" timeout="5s"/>
</actions>
</resource-agent>`

// agentRoot is an OCF root with the agent test:web, a line of shell per action.
// It notes each action that it is called for in the file calls.
func agentRoot(t *testing.T, actions map[string]string) string {
	t.Helper()
	root := t.TempDir()
	script := "#!/bin/sh\necho $1 >> " + root + "/calls\ncase $1 in\n"
	for name, line := range actions {
		script += name + ") " + line + ";;\n"
	}
	if actions["meta-data"] == "" {
		script += "meta-data) cat " + root + "/meta.xml;;\n"
	}
	dir := filepath.Join(root, "resource.d", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{filepath.Join(dir, "web"): script + "*) exit 3;;\nesac\n", filepath.Join(root, "meta.xml"): goldenMetadata} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func callsOf(t *testing.T, root string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

func web(root string) OCF {
	return OCF{Agent: "ocf:test:web", Instance: "front", Parameters: map[string]string{"root": "/srv/$(reboot) '\""}, CheckLevel: 10,
		StartTimeout: 5 * time.Second, Root: root}
}

func TestOCFLife(t *testing.T) {
	root := agentRoot(t, map[string]string{
		"start": "env > $OCF_ROOT/env; touch $OCF_ROOT/up", "stop": "rm -f $OCF_ROOT/up",
		"monitor": "[ $OCF_CHECK_LEVEL = 10 ] || exit 1; [ -e $OCF_ROOT/up ] || exit 7; exit 190",
	})
	cfg := web(root)
	m := newMovable(t, Spec{OCF: &cfg})
	wantRunning(t, m, false)
	for range 2 {
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantRunning(t, m, true)
	}
	b, err := os.ReadFile(filepath.Join(root, "env"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"OCF_RESKEY_root=/srv/$(reboot) '\"\n", "OCF_RESOURCE_INSTANCE=front\n", "OCF_RESOURCE_TYPE=web\n", "OCF_RESOURCE_PROVIDER=test\n",
		"OCF_RA_VERSION_MAJOR=1\n", "OCF_RESKEY_CRM_meta_timeout=5000\n", "OCF_ROOT=" + root + "\n"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("no %q in %s", want, b)
		}
	}
	for range 2 {
		if err := m.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wantRunning(t, m, false)
	if got := callsOf(t, root); got[1] != "meta-data" || slices.Contains(got[2:], "meta-data") {
		t.Errorf("it was asked what it is not once, before its start: %q", got)
	}
}

// What is found broken is stopped before it is started.
func TestOCFRecovers(t *testing.T) {
	root := agentRoot(t, map[string]string{"monitor": "exit 1", "stop": "exit 0", "start": "exit 0"})
	cfg := web(root)
	m := newMovable(t, Spec{OCF: &cfg})
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := callsOf(t, root), []string{"meta-data", "monitor", "stop", "start"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	if running, err := m.Monitor(t.Context()); running || err == nil || !strings.Contains(err.Error(), "a generic error") {
		t.Errorf("monitor: %v, %v", running, err)
	}
}

func TestOCFErrors(t *testing.T) {
	for code, hard := range map[string]bool{"1": false, "2": true, "5": true, "6": true, "200": false} {
		cfg := web(agentRoot(t, map[string]string{"monitor": "exit 7", "start": "echo because >&2; exit " + code}))
		err := newMovable(t, Spec{OCF: &cfg}).Start(t.Context())
		var failed *ExecError
		if !errors.As(err, &failed) || failed.Output != "because" || isPermanent(err) != hard {
			t.Errorf("start that exits with %s: %v, permanent %v", code, err, isPermanent(err))
		}
	}
}

func TestOCFParameters(t *testing.T) {
	root := agentRoot(t, nil)
	for want, given := range map[string]map[string]string{
		"":                                  {"root": "/x"},
		"needs parameter root":              {"port": "81"},
		"knows no parameter rot, only old,": {"root": "/x", "rot": "/y"},
	} {
		cfg := web(root)
		cfg.Parameters = given
		err := CheckOCF(t.Context(), cfg)
		if want == "" != (err == nil) || err != nil && !(isPermanent(err) && strings.Contains(err.Error(), want)) {
			t.Errorf("%v: %v, want %q", given, err, want)
		}
	}
	for _, bad := range []OCF{{Agent: "web"}, {Agent: "ocf:web"}, {Agent: "../a:b"}, {Agent: "a:b/c"}, {Agent: "a:b", Parameters: map[string]string{"x=y": ""}},
		{Agent: "a:b", CheckLevel: -1}, {Agent: "a:b", StopTimeout: -1}} {
		if _, err := New(Spec{OCF: &bad}, Deps{}); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// Metadata that cannot be read keep nothing from running, as with Pacemaker.
func TestOCFBadMetadata(t *testing.T) {
	cfg := web(agentRoot(t, map[string]string{"meta-data": "echo '<oops'", "monitor": "exit 7", "start": "exit 0"}))
	if err := newMovable(t, Spec{OCF: &cfg}).Start(t.Context()); err != nil {
		t.Error(err)
	}
	cfg = web(agentRoot(t, map[string]string{"meta-data": "exit 1"}))
	if err := newMovable(t, Spec{OCF: &cfg}).Start(t.Context()); err == nil || isPermanent(err) {
		t.Errorf("an agent that does not say what it is: %v", err)
	}
}

// An agent that is not there has nothing to stop, unless it was there before.
func TestOCFNotInstalled(t *testing.T) {
	root := agentRoot(t, map[string]string{"start": "exit 0", "monitor": "exit 7"})
	cfg := web(root)
	cfg.Agent = "test:other"
	m := newMovable(t, Spec{OCF: &cfg})
	if err := m.Start(t.Context()); !isPermanent(err) || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("start: %v", err)
	}
	wantRunning(t, m, false)
	if err := m.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	cfg = web(root)
	m = newMovable(t, Spec{OCF: &cfg})
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "resource.d", "test", "web")); err != nil {
		t.Fatal(err)
	}
	if err := m.Stop(t.Context()); err == nil {
		t.Error("what an agent started that is gone is taken for stopped")
	}
}

// What Debian's agents say of themselves is understood.
func TestOCFOfDebian(t *testing.T) {
	if _, err := os.Stat(OCFRoot + "/resource.d/heartbeat/Dummy"); err != nil {
		t.Skipf("needs resource-agents: %v", err)
	}
	for agent, missing := range map[string]string{"Dummy": "", "IPaddr2": "ip", "Filesystem": "device, directory, fstype", "pgsql": ""} {
		err := CheckOCF(t.Context(), OCF{Agent: "heartbeat:" + agent})
		if missing == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), "needs parameter "+missing) {
			t.Errorf("%s: %v", agent, err)
		}
	}
	m := newMovable(t, Spec{OCF: &OCF{Agent: "heartbeat:Dummy", Instance: "a-test-of-hapair", Parameters: map[string]string{"state": t.TempDir() + "/state"}}})
	wantRunning(t, m, false)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRunning(t, m, true)
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRunning(t, m, false)
}

func TestOCFMetadata(t *testing.T) {
	m, err := parseOCFMetadata([]byte(goldenMetadata))
	if err != nil {
		t.Fatal(err)
	}
	want := &ocfMetadata{Name: "web", Parameters: []ocfParameter{{"root", true, false}, {"port", false, false}, {"old", true, true}},
		Actions: []ocfAction{{"start", 2 * time.Minute}, {"stop", time.Minute}, {"monitor", 0}, {"meta-data", 5 * time.Second}}}
	if m.Name != want.Name || !slices.Equal(m.Parameters, want.Parameters) || !slices.Equal(m.Actions, want.Actions) {
		t.Errorf("got %+v, want %+v", m, want)
	}
}

func FuzzOCFMetadata(f *testing.F) {
	f.Add([]byte(goldenMetadata))
	f.Add([]byte("<resource-agent><parameters><parameter/></parameters></resource-agent>"))
	f.Add([]byte("<other/>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseOCFMetadata(text)
		if err != nil {
			return
		}
		for _, a := range m.Actions {
			if a.Timeout < 0 {
				t.Errorf("action %s has time-out %s", a.Name, a.Timeout)
			}
		}
		given := map[string]string{}
		for _, p := range m.Parameters {
			given[p.Name] = ""
		}
		if err := m.refuse(given); err != nil {
			t.Errorf("all parameters are given, and: %v", err)
		}
	})
}
