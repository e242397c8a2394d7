package commands

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"hapair/agent/api/apitest"
	"hapair/agent/apiv1"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got)\n%s", name, d)
	}
}

// stories are statuses of days that are not all good.
var stories = map[string]func(*apiv1.Status){
	"healthy": func(*apiv1.Status) {},
	"replaced": func(st *apiv1.Status) {
		st.Quorum.HasQuorum, st.Quorum.Reachable, st.Quorum.Leader = false, 1, ""
		st.Quorum.Replaced = "beta takes another machine for alpha: the one begun 2026-03-01 12:00:00 UTC (K7Q2); this one, begun 2025-01-01 00:00:00 UTC (A1B2), was replaced: keep it off, or empty its ledger directory to have it join as a new one"
	},
	"new-machine": func(st *apiv1.Status) {
		st.Quorum.HasQuorum, st.Quorum.Refusing = false, []string{"beta", "gamma"}
	},
	"alone": func(st *apiv1.Status) {
		st.Quorum.Voters, st.Quorum.Reachable, st.Quorum.Alone = 1, 1, true
	},
	"joining": func(st *apiv1.Status) {
		st.Quorum.HasQuorum, st.Quorum.Joining, st.Arbitration, st.Resources[0].Arbitration = true, true, "manual", "manual"
	},
	"arranging": func(st *apiv1.Status) {
		st.Quorum.Arranging = "alpha is configured with the witness delta, beta with the witness gamma: put the same configuration on both, then hactl config apply on both"
	},
	"fencing": func(st *apiv1.Status) {
		st.Fencing = []apiv1.Fencing{{Node: "beta", Because: "no fence device of node beta can be used: level 1: fence_ipmilan 10.0.0.1: monitor: exit code 3 (login denied)",
			UnderWay: &apiv1.FenceUnderWay{Because: "it is dead", Since: st.Time.Add(-75 * time.Second), Level: 2, Failed: "level 1: fence_ipmilan 10.0.0.1: refused: login denied", WaitsForOperator: true}}}
		st.Fences = []apiv1.Fence{{Node: "beta", Outcome: apiv1.FenceRefused, Device: "fence_ipmilan 10.0.0.1", Reason: "login denied", Since: st.Time.Add(-5 * time.Minute)}}
	},
	"not-petted": func(st *apiv1.Status) {
		st.Watchdog = &apiv1.Watchdog{Device: "/dev/watchdog", Driver: "Software Watchdog", TimeoutMS: 10_000, PettedMS: 4_200, Because: "sbd: the disk was not read for 6s (read block 2: EIO), nor is the other node heard"}
	},
	"no-pills": func(st *apiv1.Status) {
		st.Watchdog = &apiv1.Watchdog{Device: "/dev/watchdog", TimeoutMS: 10_000, PettedMS: 200, Disk: "/dev/disk/by-id/wwn-1", DiskBecause: "read block 2: input/output error"}
	},
	"fenced": func(st *apiv1.Status) {
		st.Fencing = []apiv1.Fencing{{Node: "beta", Ready: true}}
		st.Fences = []apiv1.Fence{{Node: "beta", Outcome: apiv1.FenceConfirmed, Device: "fence_ipmilan 10.0.0.1", Reason: "switched off, and its status is off", Since: st.Time.Add(-time.Minute)}}
	},
	"fence-device": func(st *apiv1.Status) {
		st.Fencing = []apiv1.Fencing{{Node: "beta", Ready: true, Devices: []apiv1.FenceDevice{
			{Name: "fence_virsh 10.0.0.1 beta", Level: 1, Checked: &st.Time, Because: "its status says OFF, and this node hears the other one"},
			{Name: "exec off", Level: 2, Because: "not checked yet"}, {Name: "manual", Level: 3, Usable: true, Checked: &st.Time}}}}
	},
	"fenced-long-ago": func(st *apiv1.Status) {
		st.Fencing = []apiv1.Fencing{{Node: "beta", Ready: true}}
		st.Fences = []apiv1.Fence{{Node: "beta", Outcome: apiv1.FenceConfirmed, Since: st.Time.Add(-time.Hour)}}
	},
	"resync": func(st *apiv1.Status) {
		r := &st.Resources[0]
		r.InSync = []string{"alpha"}
		p := &r.Peers[0]
		p.DiskState, p.Replication, p.DirtyBytes = "Inconsistent", "SyncSource", 47<<30
		p.Resync = &apiv1.Resync{Direction: apiv1.ToPeer, DoneBytes: 53 << 30, TotalBytes: 100 << 30, RateBytesPerS: 310e6, ETAS: 163}
	},
	"path-bad": func(st *apiv1.Status) {
		*st.Members[1].Paths[0].Streams = apiv1.Streams{Use: apiv1.PathBad, Because: "frames of full size have not come back for 200ms, over another path they do"}
		st.Resources[0].Peers[0].Path = "lan"
	},
	"all-paths": func(st *apiv1.Status) { st.Resources[0].Peers[0].AlsoPaths = []string{"lan"} },
	"witness": func(st *apiv1.Status) {
		st.Node, st.UptimeS = "gamma", 90
		for i := range st.Members {
			m := &st.Members[i]
			m.Self = m.Name == "gamma"
			if !m.Self {
				m.Paths = []apiv1.Path{{Name: "lan", State: apiv1.MemberAlive}}
			}
		}
		st.Resources = []apiv1.Resource{
			{Name: "pg", Token: 4, Primary: "alpha", InSync: []string{"alpha", "beta"}, Role: "Unknown", DiskState: "Diskless", Arbitration: "witness", Because: "alpha is Primary and renews its lease here"},
			{Name: "web", Role: "Unknown", DiskState: "Diskless", Arbitration: "witness", Because: "nobody has declared which copy is good"},
		}
	},
	"resync-almost": func(st *apiv1.Status) {
		p := &st.Resources[0].Peers[0]
		p.DirtyBytes = 4096
		p.Resync = &apiv1.Resync{Direction: apiv1.ToPeer, DoneBytes: 100<<30 - 4096, TotalBytes: 100 << 30, ETAS: -1}
	},
	"resync-paused": func(st *apiv1.Status) {
		st.Resources[0].Peers[0].Resync = &apiv1.Resync{Direction: apiv1.FromPeer, DoneBytes: 0, TotalBytes: 1 << 20, Paused: true, PausedBy: "beta"}
	},
	"verify": func(st *apiv1.Status) {
		st.Resources[0].Verify = apiv1.Verify{State: apiv1.VerifyRunning, Repair: true, DoneBytes: 25 << 30, TotalBytes: 100 << 30, RateBytesPerS: 512 << 20, ETAS: 150, DifferingBytes: 4096, RepairedBytes: 4096}
	},
	"verify-waits": func(st *apiv1.Status) {
		st.Resources[0].Verify = apiv1.Verify{State: apiv1.VerifyRunning, DoneBytes: 100<<30 - 512, TotalBytes: 100 << 30, ETAS: -1, Waits: "beta is not connected"}
	},
	"verify-found": func(st *apiv1.Status) {
		r := &st.Resources[0]
		r.Peers[0].DirtyBytes = 8192
		r.Verify = apiv1.Verify{State: apiv1.VerifyDone, DoneBytes: 100 << 30, TotalBytes: 100 << 30, ETAS: -1, DifferingBytes: 8192, UnreadableBytes: 4096,
			Found: []apiv1.Range{{Offset: 1 << 20, Length: 8192, Kind: apiv1.RangeDiffers}, {Offset: 9 << 20, Length: 4096, Kind: apiv1.RangeUnreadableHere}}}
	},
	"protocol": func(st *apiv1.Status) {
		r := &st.Resources[0]
		r.Protocol, r.ProtocolWhy = "B", "beta is configured for protocol B, this node for A: the stricter one counts"
		r.Peers[0].BehindBytes = 64 << 10
	},
	"split-brain": func(st *apiv1.Status) {
		r := &st.Resources[0]
		since := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
		r.SplitBrain = true
		r.Sides = []apiv1.Side{
			{Node: "alpha", Role: "Primary", WasPrimary: true, Token: 9, OnlyBytes: 3 << 20, Since: &since, Keep: []string{"hactl connect pg --discard-my-data"}, KeepOn: "beta",
				Volumes: []apiv1.SideVolume{{DirtyBlocks: 768, DirtyBytes: 3 << 20, Counted: true, Since: &since, Generation: "A1", Base: "A0"}}, Loses: "at most 4096 bytes that only beta has"},
			{Node: "beta", Role: "Unknown", OnlyBytes: apiv1.UnknownBytes, Keep: []string{"hactl demote pg --force", "hactl connect pg --discard-my-data"}, KeepOn: "alpha", Loses: "at most 3145728 bytes"},
		}
	},
	"kept": func(st *apiv1.Status) {
		since := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
		st.Resources[0].Kept = []apiv1.KeptImage{
			{State: "keeping", GivenUp: since.Add(time.Hour), Since: &since, Peer: "beta", Generation: "A1", SizeBytes: 1 << 30, KeptBlocks: 768, UsedBytes: 3 << 20, Device: "/dev/loop3"},
			{Volume: 1, State: "incomplete", Why: "no room for the image", GivenUp: since.Add(time.Hour), Peer: "beta", Generation: "A1", SizeBytes: 1 << 30, KeptBlocks: 1, UsedBytes: 4096},
		}
	},
	"peer-lost": func(st *apiv1.Status) {
		r := &st.Resources[0]
		r.InSync = []string{"alpha"}
		st.Quorum.Reachable = 2
		r.Peers[0] = apiv1.Peer{Node: "beta", Role: "Unknown", DiskState: "Outdated", Connection: "Connecting", Replication: "Off", Reason: "no route to host", DirtyBytes: 12 << 20, DownS: 75}
		m := &st.Members[1]
		m.State, m.Reasons = apiv1.MemberDead, []string{"no carrier on crossover; silent on lan for 75s"}
		m.Paths[0].State, m.Paths[1].State = apiv1.MemberDead, apiv1.MemberDead
	},
	"frozen": func(st *apiv1.Status) {
		r := &st.Resources[0]
		st.Quorum = apiv1.Quorum{Voters: 3, Reachable: 1}
		r.LeaseMS, r.Frozen, r.FrozenReasons = 0, true, []string{"no quorum: beta and gamma are silent", "the lease ran out 2 s ago"}
		r.Peers[0].Connection, r.Peers[0].Path, r.Peers[0].Reason = "Connecting", "", "connection timed out"
		st.LastProblem = &apiv1.ProblemAt{Time: st.Time, Problem: apiv1.Problem{Code: apiv1.CodeNoQuorum, Text: "1 of 3 voters can be reached", Hint: "check the switch between this node and gamma"}}
	},
	"service-failed": func(st *apiv1.Status) {
		s := st.Resources[0].Services
		s[1].State, s[1].Error = apiv1.ServiceFailed, "start timed out after 90s"
		s[2].State = apiv1.ServiceStopped
	},
	"secondary": func(st *apiv1.Status) {
		st.Node = "beta"
		r := &st.Resources[0]
		r.Role, r.LeaseMS, r.Suspect = "Secondary", 0, true
		r.Volumes[0].Device = ""
		r.Peers[0] = apiv1.Peer{Node: "alpha", Role: "Primary", DiskState: "UpToDate", Connection: "Connected", Path: "lan"}
		r.Services = nil
		st.Members[0].Self, st.Members[1].Self = false, true
		st.Maintenance, st.Standby = true, []string{"beta"}
	},
	"open": func(st *apiv1.Status) {
		v := &st.Resources[0].Volumes[0]
		v.OpenBy, v.DiskState, v.Counters.ErrorsTotal = []string{"postgres (pid 4711)", "mount of /srv/pg"}, "Failed", 3
	},
	"not-attached": func(st *apiv1.Status) {
		st.Node = "beta"
		r := &st.Resources[0]
		r.Role, r.DiskState, r.LeaseMS, r.Because = "Unknown", "Diskless", 0, "not attached: open disk /dev/vg0/pg: no such file or directory"
		r.Volumes, r.Peers, r.Services = nil, nil, nil
		st.Members[0].Self, st.Members[1].Self = false, true
	},
	"not-connected": func(st *apiv1.Status) {
		st.Node = "beta"
		r := &st.Resources[0]
		r.Role, r.LeaseMS, r.Because, r.Services = "Secondary", 0, "alpha is Primary and may hold its lease (token 12)", nil
		r.Volumes[0].Device = ""
		r.Peers[0] = apiv1.Peer{Node: "alpha", Role: "Unknown", DiskState: "DUnknown", Connection: "StandAlone", Reason: "disconnected by wish", DownS: 5}
		st.Members[0].Self, st.Members[1].Self = false, true
	},
	"primary-dead": func(st *apiv1.Status) {
		st.Node = "beta"
		r := &st.Resources[0]
		r.Role, r.LeaseMS, r.Because, r.Services = "Secondary", 0, "maintenance is on: nothing is promoted by itself", nil
		r.Volumes[0].Device = ""
		r.Peers[0] = apiv1.Peer{Node: "alpha", Role: "Unknown", DiskState: "DUnknown", Connection: "Connecting", DownS: 5}
		st.Members[0].Self, st.Members[1].Self, st.Members[0].State = false, true, apiv1.MemberDead
	},
	"nothing": func(st *apiv1.Status) { st.Resources = nil },
	"no-primary": func(st *apiv1.Status) {
		r := &st.Resources[0]
		r.Primary, r.Role, r.LeaseMS, r.DiskState = "", "Secondary", 0, "Consistent"
		r.LastProblem = &apiv1.ProblemAt{Time: st.Time, Problem: apiv1.Problem{Text: "waiting for beta: this copy is not proven latest", Hint: "hactl explain pg"}}
	},
}

// What --verbose adds.
func TestGoldenPaths(t *testing.T) {
	st := apitest.Sample()
	x := &st.Members[1].Paths[0]
	*x.Streams = apiv1.Streams{Use: apiv1.PathHeld, Because: "well again, must be so for 8s", SinceS: 3, HoldMS: 4960, Losses: 3, Moves: 2, RoundTripUS: 310, Live: 1, BytesOut: 4096, Retransmits: 12}
	y := &st.Members[1].Paths[1]
	y.State, *y.Streams = apiv1.MemberDead, apiv1.Streams{Use: apiv1.PathBad, Because: "dead by the heartbeat: no carrier", SinceS: 70, Losses: 1}
	st.Members[2].Paths[0].Streams.Use = ""
	text := renderPaths(&st, style{})
	golden(t, "paths", text)
	if plain := uncolour(renderPaths(&st, style{on: true})); plain != text {
		t.Errorf("with colours: %q", plain)
	}
}

func TestWriteOut(t *testing.T) {
	for want, w := range map[string]apiv1.WriteOut{
		"memory  ready for when it is short: 23 of 23 threads never wait for writes, 40 MiB stay in memory, the kernel ends others first\n":                  {Ready: true, Threads: 23, Flushers: 23, LockedBytes: 40 << 20, OOMScoreAdj: -1000},
		"memory  not ready for when it is short: 0 of 9 threads never wait for writes, 0 B stay in memory, the kernel may end the agent (oom_score_adj 0)\n": {Threads: 9},
		"memory  not known: no /proc\n": {Because: "no /proc"},
	} {
		if got := renderWriteOut(&w, style{}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestGoldenStatus(t *testing.T) {
	for name, change := range stories {
		t.Run(name, func(t *testing.T) {
			st := apitest.Sample()
			change(&st)
			text := renderStatus(&st, style{})
			golden(t, name, text)
			if n := strings.Count(text, "\n"); n > 20 {
				t.Errorf("%d lines do not fit beside a prompt", n)
			}
			if strings.ContainsRune(text, '\x1b') {
				t.Error("colour where none was wanted")
			}
			// Colours change nothing but colours.
			if plain := uncolour(renderStatus(&st, style{on: true})); plain != text {
				t.Errorf("coloured differently:\n%s", cmp.Diff(text, plain))
			}
		})
	}
}

func uncolour(s string) string {
	for {
		i := strings.Index(s, "\x1b[")
		if i < 0 {
			return s
		}
		j := strings.IndexByte(s[i:], 'm')
		s = s[:i] + s[i+j+1:]
	}
}

// Whatever an agent sends is drawn without a panic and without control
// characters of its own.
func TestRenderAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		num := rapid.Int64()
		st := apiv1.Status{
			Node: text.Draw(t, "node"), UptimeS: num.Draw(t, "uptime"), Standby: rapid.SliceOf(text).Draw(t, "standby"),
			Members: []apiv1.Member{{Name: text.Draw(t, "m"), Kind: apiv1.KindWitness, State: "dead", Reasons: []string{text.Draw(t, "why")}, Paths: []apiv1.Path{{Name: text.Draw(t, "path")}}}},
			Resources: []apiv1.Resource{{
				Name: "r", Primary: text.Draw(t, "primary"), Frozen: true, FrozenReasons: []string{text.Draw(t, "frozen")},
				Volumes:  []apiv1.Volume{{Device: text.Draw(t, "device"), SizeBytes: num.Draw(t, "size"), OpenBy: []string{text.Draw(t, "by")}}},
				Peers:    []apiv1.Peer{{Node: text.Draw(t, "peer"), Reason: text.Draw(t, "reason"), Resync: &apiv1.Resync{DoneBytes: num.Draw(t, "done"), TotalBytes: num.Draw(t, "total"), ETAS: num.Draw(t, "eta")}}},
				Services: []apiv1.Service{{Name: text.Draw(t, "service"), Error: text.Draw(t, "error"), State: "failed"}},
			}},
		}
		out := renderStatus(&st, style{})
		for _, r := range out {
			if r < ' ' && r != '\n' || r == 0x7f {
				t.Fatalf("control character %q in %q", r, out)
			}
		}
	})
}

func TestFigures(t *testing.T) {
	for got, want := range map[string]string{
		bytesText(0): "0 B", bytesText(4096): "4 KiB", bytesText(100 << 30): "100 GiB", bytesText(3 << 19): "1.5 MiB",
		countText(12400): "12.4k", rateText(48e6): "48 MB/s", microsText(210): "210 us", microsText(1400): "1.4 ms",
		secondsText(41): "41s", secondsText(3600): "60m", secondsText(3 * 86400): "3d", secondsText(5*3600 + 1200): "5h 20m",
		bar(1, 2, 4): "[##--]", bar(0, 0, 2): "[--]", bar(9, 3, 2): "[##]",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if d := (2 * time.Hour).Hours(); secondsText(int64(d)*3600) != "2h 0m" {
		t.Error(secondsText(7200))
	}
}

// A service that runs again still says how often it failed.
func TestRenderFailures(t *testing.T) {
	var b strings.Builder
	renderServices(&b, []apiv1.Service{
		{Name: "mount:/srv/pg", Kind: "mount", State: apiv1.ServiceRunning, FailureLimit: 3},
		{Name: "exec:pg", Kind: "exec", State: apiv1.ServiceRunning, Failures: 2, FailureLimit: 3, ForgottenInS: 540, LastFailure: "exit code 1"},
	}, style{})
	want := "  service exec:pg (exec) failed here 2 of 3 times, forgotten in 9m: exit code 1\n  services running: mount:/srv/pg, exec:pg\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}
