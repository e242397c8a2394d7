package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"hapair/agent/api"
	"hapair/agent/api/apitest"
	"hapair/agent/apiv1"
)

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"hactl": main})
}

type leakChecked struct{ m *testing.M }

// Run runs the tests and then looks for goroutines left behind.
func (l leakChecked) Run() int {
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// agents are the fake agents of the running scripts, by work directory.
var agents sync.Map

// The scripts run hactl as a program against the real API server with a fake
// agent behind it.
func TestScripts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs uid 0: changes are for root")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("SOCK", filepath.Join(env.WorkDir, "agent.sock"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"agent": agentCmd, "exits": exitsCmd, "waitfor": waitforCmd,
		},
	})
}

// agentCmd is "agent start", "agent set VARIANT", "agent fail VERB CODE TEXT
// HINT", "agent publish KIND RES TEXT", "agent asked REGEXP".
func agentCmd(ts *testscript.TestScript, neg bool, args []string) {
	if args[0] == "start" {
		startAgent(ts)
		return
	}
	v, ok := agents.Load(ts.Getenv("SOCK"))
	if !ok {
		ts.Fatalf("no agent runs")
	}
	b := v.(*apitest.Backend)
	switch args[0] {
	case "set":
		b.SetStatus(variant(args[1]))
	case "fail":
		b.Fail(args[1], &apiv1.Problem{Code: args[2], Text: args[3], Hint: args[4]})
	case "publish":
		b.Publish(args[1], args[2], args[3], map[string]string{"was": "Secondary", "now": "Primary"})
	case "asked":
		re := regexp.MustCompile(args[1])
		found := false
		for _, line := range b.Asked() {
			found = found || re.MatchString(line)
		}
		if found == neg {
			ts.Fatalf("asked %q, looking for %s", b.Asked(), args[1])
		}
	default:
		ts.Fatalf("agent %s?", args[0])
	}
}

func startAgent(ts *testscript.TestScript) {
	sock := ts.Getenv("SOCK")
	at := apitest.Sample().Time
	b := apitest.New(apitest.Sample(), func() time.Time { return at })
	b.SetExplanation(apiv1.Explanation{
		Resource: "pg", Node: "alpha", Verdict: apiv1.NeedsForce, Text: "The peer may have newer data.",
		Why:       []apiv1.Reason{{Rule: "quorum", Holds: true, Evidence: "2 of 3 voters"}, {Rule: "in_sync", Holds: false, Evidence: "removed under token 11"}},
		WouldLose: []string{"writes answered by beta since 02:11:07"}, Help: []string{"bring beta back"},
	})
	srv, err := api.New(api.Options{Backend: b, Version: apiv1.Version{Version: "1.0.0", Node: "alpha"}})
	ts.Check(err)
	l, _, err := api.Listen(sock, "")
	ts.Check(err)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	agents.Store(sock, b)
	ts.Defer(func() {
		agents.Delete(sock)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		ts.Check(errors.Join(srv.Shutdown(ctx), <-done))
	})
}

func variant(name string) apiv1.Status {
	st := apitest.Sample()
	r := &st.Resources[0]
	switch name {
	case "secondary":
		st.Node, r.Role, r.LeaseMS = "beta", "Secondary", 0
		r.Volumes[0].Device = ""
		r.Peers[0].Node, r.Peers[0].Role = "alpha", "Primary"
	case "hostile":
		r.Frozen, r.FrozenReasons = true, []string{"evil\x1b[2J\nname"}
	}
	return st
}

// exitsCmd is "exits CODE program args": the program must end with that code.
func exitsCmd(ts *testscript.TestScript, _ bool, args []string) {
	want := args[0]
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	var code interface{ ExitCode() int }
	if errors.As(err, &code) {
		got = fmt.Sprint(code.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %s, want %s", got, want)
	}
}

// waitforCmd is "waitfor FILE REGEXP ENV": waits until a growing file has a
// match and puts its first group into ENV.
func waitforCmd(ts *testscript.TestScript, _ bool, args []string) {
	re := regexp.MustCompile(args[1])
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil {
			if m := re.FindSubmatch(data); m != nil {
				ts.Setenv(args[2], string(m[1]))
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("no %s in %s: %s", args[1], args[0], data)
		}
	}
}
