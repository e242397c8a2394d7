package plan

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hapair/failover/lease"
	"hapair/mirror/state"
)

var rewrite = flag.Bool("rewrite", false, "write what the stories now say")

// TestStories reads testdata/*.txt. A story is a list of blocks: commands, a
// line of dashes, and what comes out. It begins with the view of base.
//
//	set key=value …   change the view
//	next              the decision
//	run               decide, do the first step as if all went well, again until it waits
//	explain           every reason
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { tell(t, file) })
	}
}

func tell(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v := base()
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimSpace(string(data)), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		head, _, _ := strings.Cut(block+"\n", "----\n")
		out.WriteString(head)
		said := ""
		for line := range strings.SplitSeq(strings.TrimSpace(head), "\n") {
			text, err := perform(&v, strings.TrimSpace(line))
			if err != nil {
				t.Fatalf("%s: block %d: %q: %v", file, i+1, line, err)
			}
			said += text
		}
		if said != "" {
			out.WriteString("----\n" + said)
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(strings.TrimSpace(string(data)), strings.TrimSpace(out.String())); diff != "" {
		t.Errorf("%s (- the story, + now; -rewrite to accept):\n%s", file, diff)
	}
}

// base is a healthy pair with a witness, seen from n2: n1 is Primary.
func base() View {
	s := Defaults()
	s.Run, s.HasServices = true, true
	return View{
		Resource: "pg", Now: 100 * time.Second,
		Self:     Node{Name: "n2", Role: state.Secondary, Disk: state.UpToDate},
		Peer:     Peer{Name: "n1", Verdict: Alive, Told: true, Role: state.Primary, Disk: state.UpToDate},
		Mirror:   Mirror{Connection: state.Connected, Replication: state.Established},
		Ledger:   Ledger{Known: true, Quorum: true, Record: Record{Token: 7, Tenure: 5, Primary: "n1", InSync: []string{"n1", "n2"}}},
		Settings: s,
	}
}

func perform(v *View, line string) (string, error) {
	cmd, rest, _ := strings.Cut(line, " ")
	switch cmd {
	case "", "#":
		return "", nil
	case "set":
		for _, kv := range strings.Fields(rest) {
			k, val, _ := strings.Cut(kv, "=")
			if err := set(v, k, val); err != nil {
				return "", fmt.Errorf("%s: %w", kv, err)
			}
		}
		return "", nil
	case "next":
		return say(Next(*v), *v), nil
	case "run":
		return runOn(v)
	case "explain":
		return explained(*v), nil
	}
	return "", fmt.Errorf("no such command %q", cmd)
}

func say(d Decision, v View) string {
	var b strings.Builder
	switch {
	case d.Refused != nil:
		fmt.Fprintf(&b, "refused [%s]: %s\n  try: %s\n", d.Refused.Code, d.Refused.Text, d.Refused.Hint)
		return b.String()
	case len(d.Steps) > 0:
		var names []string
		for _, s := range d.Steps {
			names = append(names, s.String())
		}
		fmt.Fprintf(&b, "do %s\n  because %s\n", strings.Join(names, ", "), d.Because)
	default:
		fmt.Fprintf(&b, "wait [%s]: %s\n", d.Code, d.Because)
		if d.Hint != "" {
			fmt.Fprintf(&b, "  try: %s\n", d.Hint)
		}
	}
	if d.At != 0 {
		fmt.Fprintf(&b, "  look again in %s\n", d.At-v.Now)
	}
	return b.String()
}

func runOn(v *View) (string, error) {
	var b strings.Builder
	for range 20 {
		d := Next(*v)
		if len(d.Steps) == 0 {
			return b.String() + say(d, *v), nil
		}
		fmt.Fprintf(&b, "%s: %s\n", d.First(), d.Because)
		nominal(v, d.First())
		v.Now += 10 * time.Millisecond
	}
	return "", fmt.Errorf("still not settled after 20 steps:\n%s", b.String())
}

// nominal changes the view as the step does when all goes well.
func nominal(v *View, s Step) {
	r := &v.Ledger.Record
	grant := func() {
		r.LastPrimary, r.Primary = v.Self.Name, v.Self.Name
		r.Token++
		r.Tenure = r.Token
		v.Tenure, v.Ledger.Since, v.Hinted, v.Tried = r.Tenure, v.Now, false, false
	}
	switch s.Kind {
	case Declare:
		*r = Record{Token: 1, InSync: []string{v.Self.Name, v.Peer.Name}}
	case AskLapsed:
		v.Lease.MajorityLapsed, v.Lease.LookedAt, v.Lease.LapsedSince = true, v.Now, v.Now
	case AskPeer, HandOver:
		v.Hinted = true
	case GoBack:
		v.Wish = Wish{Kind: Switchover, Target: v.Peer.Name, Since: v.Now}
	case Disconnect:
		v.Mirror.Connection, v.Peer.Told = state.Connecting, false
	case ForceAlone, GoAlone:
		v.Ledger.Quorum, v.Ledger.Alone = true, true
		v.Lease.Own.Until = v.Now + time.Second
		if v.Fence.State == FenceConfirmed && r.Primary == v.Peer.Name {
			r.LastPrimary, r.Primary, r.Token, v.Ledger.Since = r.Primary, "", r.Token+1, v.Now
		}
		v.Fence.State = FenceNone
	case FencePeer:
		v.Fence.State, v.Fence.Since = FenceConfirmed, v.Now
	case LedgerForce:
		r.InSync, r.Primary, r.Token = []string{v.Self.Name}, "", r.Token+1
	case LedgerPromote:
		grant()
	case HoldLease:
		v.Lease.Asked = true
		v.Lease.Own = lease.Lease{Resource: v.Resource, Tenure: r.Tenure, Until: v.Now + time.Hour}
	case MirrorPromote:
		v.Self.Role, v.Self.Tenure, v.Mirror.Unopened = state.Primary, r.Tenure, false
		if s.Force {
			v.Self.Disk = state.UpToDate
		}
	case StartServices, RestartServices:
		v.Services.State, v.Tried = Started, true
	case StopServices:
		v.Services.State, v.Tried = Stopped, false
	case MirrorDemote:
		v.Self.Role, v.Self.Tenure, v.Mirror.Unopened = state.Secondary, 0, false
		if v.Self.Disk == state.Failed { // a Secondary without its disk keeps no session
			v.Mirror.Connection, v.Peer.Told, v.Mirror.Replication = state.Connecting, false, state.Off
		}
	case LedgerDemote:
		v.Down, v.Owed = v.Down || v.Owed, false
		r.Token++
		r.LastPrimary, r.Primary, v.Ledger.Since = v.Self.Name, "", v.Now
	case ReleaseLease:
		v.Lease.Asked, v.Lease.Own = false, lease.Lease{}
	case AbortLost:
		v.Self.Role, v.Self.Tenure, v.Services.State, v.Mirror.Unopened = state.Secondary, 0, Stopped, false
	}
}

func explained(v View) string {
	var b strings.Builder
	for _, r := range Explain(v) {
		mark := "no "
		if r.OK {
			mark = "yes"
		}
		if r.Loss {
			mark = "LOSS"
		}
		fmt.Fprintf(&b, "%s %s", mark, r.Text)
		if r.Hint != "" && !r.OK {
			fmt.Fprintf(&b, " (%s)", r.Hint)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func set(v *View, key, val string) error {
	if f, ok := flags(v)[key]; ok {
		*f = val == "yes"
		if val != "yes" && val != "no" {
			return fmt.Errorf("yes or no")
		}
		return nil
	}
	switch key {
	case "self":
		if v.Self.Name != val {
			v.Self.Name, v.Peer.Name = v.Peer.Name, v.Self.Name
		}
	case "record", "old":
		return setRecord(v, key, val)
	case "last":
		v.Ledger.Record.LastPrimary = val
	case "now":
		return setDuration(&v.Now, val)
	case "later":
		d, err := time.ParseDuration(val)
		v.Now += d
		return err
	case "started":
		return setDuration(&v.Started, val)
	case "lapsed":
		v.Lease.PeerLapsed = val == "local" || val == "majority"
		v.Lease.MajorityLapsed, v.Lease.LapsedSince = val == "majority", v.Now
	case "lease":
		v.Lease.Asked = val != "none"
		v.Lease.Own = lease.Lease{}
		if val == "held" || val == "lapsed" {
			v.Lease.Own = lease.Lease{Resource: v.Resource, Tenure: v.Ledger.Record.Tenure, Until: v.Now + time.Hour}
		}
		if val == "lapsed" {
			v.Lease.Own.Until = v.Now - 1
		}
	case "tenure":
		n, err := strconv.ParseUint(val, 10, 64)
		v.Tenure = lease.Token(n)
		return err
	case "role":
		v.Self.Role = pick(val, state.Secondary, state.Primary)
		v.Self.Tenure = 0
		if v.Self.Role == state.Primary {
			v.Self.Tenure = v.Tenure
		}
	case "disk":
		v.Self.Disk = disk(val)
	case "peer.role":
		v.Peer.Role = pick(val, state.RoleUnknown, state.Secondary, state.Primary)
	case "peer.disk":
		v.Peer.Disk = disk(val)
	case "peer":
		v.Peer.Verdict, v.Peer.Since = pick(val, Unheard, Alive, Suspected, Dead), v.Now
		if v.Peer.Verdict == Dead || v.Peer.Verdict == Unheard {
			return set(v, "conn", "Connecting")
		}
	case "conn":
		v.Mirror.Connection = pick(val, state.StandAlone, state.Unconnected, state.Connecting, state.Connected)
		v.Peer.Told = v.Mirror.Connection == state.Connected
		v.Mirror.Since = v.Now
		v.Mirror.Replication = state.Off
		if v.Peer.Told {
			v.Mirror.Replication = state.Established
		}
	case "repl":
		v.Mirror.Replication = pick(val, state.Off, state.Established, state.SyncSource, state.SyncTarget, state.Forwarding)
	case "services":
		v.Services.State = pick(val, Stopped, Started, Partial, Broken)
	case "failures", "peer.failures", "failback", "fit", "tries":
		return setMemory(v, key, val)
	case "wish":
		kind, target, _ := strings.Cut(strings.TrimSuffix(val, "!"), ":")
		v.Wish = Wish{Kind: pick(kind, NoWish, Promote, Demote, Switchover), Target: target, Force: strings.HasSuffix(val, "!"), Since: v.Now}
	case "hint":
		v.Hint = Hint{Take: val == "take", From: v.Peer.Name, Until: v.Now + 10*time.Second}
	case "arbitration":
		v.Settings.Arbitration = pick(val, Witness, Manual, Fencing)
	case "preferred":
		v.Settings.Preferred = val
	case "held":
		v.Mirror.Held = []string{val}
	case "missing", "rival", "fence", "fence.failures", "may", "unready":
		return setApart(v, key, val)
	case "trouble":
		kind, n, _ := strings.Cut(val, ":")
		for k := Nothing; k <= AbortLost; k++ {
			if k.String() == kind {
				v.Trouble.Step = k
			}
		}
		v.Trouble.Text, v.Trouble.At = "no answer", v.Now
		return setInt(&v.Trouble.Count, n)
	default:
		return fmt.Errorf("no such key")
	}
	return nil
}

func flags(v *View) map[string]*bool {
	return map[string]*bool{
		"known": &v.Ledger.Known, "tried": &v.Tried, "quorum": &v.Ledger.Quorum, "answers": &v.Ledger.Answers, "alone": &v.Ledger.Alone, "suspect": &v.Self.Suspect,
		"standby": &v.Self.Standby, "assume-clean": &v.Self.AssumeClean, "peer.suspect": &v.Peer.Suspect,
		"peer.standby": &v.Peer.Standby, "peer.assume-clean": &v.Peer.AssumeClean, "split-brain": &v.Mirror.SplitBrain, "ledger-split": &v.Ledger.Split,
		"newer": &v.Mirror.PeerNewer, "maintenance": &v.Maintenance, "down": &v.Down, "owed": &v.Owed, "run": &v.Settings.Run,
		"has-services": &v.Settings.HasServices, "hinted": &v.Hinted, "forwards": &v.Mirror.Forwards, "unopened": &v.Mirror.Unopened, "first": &v.Fence.First, "stay": &v.Failback.Stay, "stop-failed": &v.Services.StopFailed,
	}
}

// setMemory is what is remembered of failures and of going back.
func setMemory(v *View, key, val string) error {
	p := v.Settings.Failures
	now := Failures{Limit: p.Threshold, At: v.Now, Until: v.Now + p.Forget, What: "postgresql.service: exit status 1"}
	switch key {
	case "failures":
		v.Self.Failed = now
		return setInt(&v.Self.Failed.Count, val)
	case "peer.failures":
		v.Peer.Failed = now
		return setInt(&v.Peer.Failed.Count, val)
	case "failback":
		return setDuration(&v.Settings.FailbackAfter, val)
	case "tries":
		return setInt(&v.Failback.Tries, val)
	}
	v.Failback.Fit = v.Now
	return nil
}

// setApart is what the copies lack of each other, and what becomes of a fence.
func setApart(v *View, key, val string) error {
	switch key {
	case "missing":
		v.Mirror.MissingBytes = 3 << 20
		return nil
	case "fence":
		v.Fence.State, v.Fence.Since = pick(val, FenceNone, FenceAsked, FenceConfirmed, FenceFailed, FenceVoid), v.Now
		v.Fence.Failures, v.Fence.Text = 0, ""
		if v.Fence.State == FenceFailed {
			v.Fence.Failures, v.Fence.Text = 1, "ipmi: unknown: no answer"
		}
		return nil
	case "fence.failures":
		return setInt(&v.Fence.Failures, val)
	case "may":
		v.Fence.May = map[string]string{"not-met": "not met since this node began"}[val]
		return nil
	case "unready":
		v.Fence.Unready = map[string]string{"yes": "ipmi: no route to host"}[val]
		return nil
	}
	v.Mirror.SplitBrain, v.Mirror.Rival = true, pick(val, state.RoleUnknown, state.Secondary, state.Primary)
	v.Mirror.OnlyThere, v.Mirror.DirtyBytes = 3<<20, 5<<20
	return nil
}

func setRecord(v *View, key, val string) error {
	r := &v.Ledger.Record
	if key == "old" {
		r = &v.Ledger.Old
	}
	if val == "empty" {
		*r = Record{}
		return nil
	}
	f := strings.Split(val, "/")
	if len(f) != 4 {
		return fmt.Errorf("token/tenure/primary/in-sync")
	}
	token, err := strconv.ParseUint(f[0], 10, 64)
	if err != nil {
		return err
	}
	tenure, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return err
	}
	if f[2] == "none" {
		f[2] = ""
	}
	*r = Record{Token: lease.Token(token), Tenure: lease.Token(tenure), Primary: f[2], InSync: strings.Split(f[3], ",")}
	v.Ledger.Since = v.Now
	return nil
}

func setDuration(d *time.Duration, val string) (err error) {
	*d, err = time.ParseDuration(val)
	return err
}

func setInt(n *int, val string) (err error) {
	*n, err = strconv.Atoi(val)
	return err
}

// pick returns the choice whose name is val, the first if none is.
func pick[T fmt.Stringer](val string, choices ...T) T {
	for _, c := range choices {
		if c.String() == val {
			return c
		}
	}
	panic("no such word: " + val)
}

func disk(val string) state.Disk {
	return pick(val, state.DUnknown, state.Diskless, state.Attaching, state.Failed, state.Inconsistent, state.Outdated, state.Consistent, state.UpToDate)
}
