package play

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab/record"
	"hapair/test/script"
)

// made is a pair that says what it is told to say.
type made struct {
	mu       sync.Mutex
	status   map[string]apiv1.Resource
	refusal  *apiv1.Problem
	lost     error
	done     []string
	asked    []string
	writers  int
	perLook  func(node string) // called at each status
	answered int
}

func (m *made) Resource() string   { return "pg" }
func (m *made) Say(string, ...any) {}
func (m *made) Do(a script.Action) error {
	m.done = append(m.done, a.String())
	return nil
}

func (m *made) Call(_ context.Context, node, method, path string, _, out any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if method != "GET" {
		m.asked = append(m.asked, node+" "+path)
		if m.refusal != nil {
			return fmt.Errorf("made: %w", m.refusal)
		}
		return nil
	}
	if m.perLook != nil {
		m.perLook(node)
	}
	r, ok := m.status[node]
	if !ok {
		return errors.New("silent")
	}
	text, err := json.Marshal(apiv1.Status{Resources: []apiv1.Resource{r}})
	if err != nil {
		return err
	}
	return json.Unmarshal(text, out)
}

// client is answered every 10 ms.
type client struct {
	first uint64
	began time.Time
	ended time.Time
}

func (m *made) Write() (Writer, error) {
	m.writers++
	return &client{first: uint64(m.writers) * 1_000_000, began: time.Now()}, nil
}

func (c *client) Acks(n int) (out []record.Ack) {
	until := time.Now()
	if !c.ended.IsZero() {
		until = c.ended
	}
	for i := n; c.began.Add(time.Duration(i+1) * 10 * time.Millisecond).Before(until); i++ {
		out = append(out, record.Ack{N: c.first + uint64(i), At: c.began.Add(time.Duration(i+1) * 10 * time.Millisecond)})
	}
	return out
}

func (c *client) End() { c.ended = time.Now() }

func (m *made) Check(_ context.Context, _ string, answered []record.Ack) error {
	m.answered = len(answered)
	return m.lost
}

// well is what the nodes of a pair say with alpha Primary.
func well() map[string]apiv1.Resource {
	node := func(role string, lease int64) apiv1.Resource {
		return apiv1.Resource{Name: "pg", Token: 7, Role: role, LeaseMS: lease, DiskState: "UpToDate", InSync: []string{script.Alpha, script.Beta},
			Volumes: []apiv1.Volume{{Device: "/dev/hapair/pg/0"}}, Peers: []apiv1.Peer{{Replication: "Established", DiskState: "UpToDate"}}}
	}
	return map[string]apiv1.Resource{script.Alpha: node("Primary", 300), script.Beta: node("Secondary", 0)}
}

// on plays steps on a made pair, in virtual time.
func on(t *testing.T, m *made, steps string) (err error) {
	synctest.Test(t, func(t *testing.T) {
		s, perr := script.Parse("x.txt", []byte("scenario x\nnever two-primaries\nnever ack-lost\nnever frozen-longer-than 3s\nload on\n"+steps))
		if perr != nil {
			t.Fatal(perr)
		}
		l := New(t.Context(), m, Speed{20 * time.Millisecond, 1})
		defer l.Close()
		if err = l.Begin(); err == nil {
			err = s.Play(l, nil)
		}
	})
	return err
}

func clause(t *testing.T, err error, want script.Clause) {
	t.Helper()
	var v *script.Violation
	if !errors.As(err, &v) || v.Clause != want {
		t.Fatalf("%v; want a violation of %s", err, want)
	}
}

func TestAllIsWell(t *testing.T) {
	m := &made{status: well()}
	if err := on(t, m, "await answers 50 within 1s\nhold primary alpha for 1s\nawait in-sync within 1s\n"); err != nil {
		t.Fatal(err)
	}
	if m.answered < 150 {
		t.Errorf("%d answers were looked for", m.answered)
	}
}

// Two nodes that serve at once are seen, by whichever tokens.
func TestTwoPrimariesAreSeen(t *testing.T) {
	m := &made{status: well()}
	looks := 0
	m.perLook = func(string) {
		if looks++; looks > 100 {
			r := m.status[script.Alpha]
			r.Token = 8
			m.status[script.Beta] = r
		}
	}
	clause(t, on(t, m, "wait 20s\n"), script.TwoPrimaries)
}

// One that serves after the other is none of that, nor one whose lease has run out.
func TestOneAfterTheOther(t *testing.T) {
	m := &made{status: well()}
	looks := 0
	m.perLook = func(node string) { // a switchover between any two looks
		looks++
		for n, r := range m.status {
			if r.Token++; n == node && looks > 50 {
				r.Role, r.LeaseMS = "Primary", 300
			}
			m.status[n] = r
		}
	}
	if err := on(t, m, "wait 5s\n"); err != nil {
		t.Fatal(err)
	}
	m = &made{status: well()}
	m.perLook = func(string) {
		r := m.status[script.Alpha]
		r.LeaseMS, r.Frozen = 0, true
		m.status[script.Beta] = r
	}
	if err := on(t, m, "hold primary alpha for 5s\n"); err != nil {
		t.Fatal(err)
	}
}

// What was answered and is not there is a violation.
func TestLostAnswer(t *testing.T) {
	m := &made{status: well(), lost: errors.New("1000003 is missing")}
	clause(t, on(t, m, "wait 1s\n"), script.AckLost)
}

// A refusal by a rule is one; a fault is not, and an agent that starts is asked
// again.
func TestRefusals(t *testing.T) {
	m := &made{status: well(), refusal: &apiv1.Problem{Code: apiv1.CodeNotUpToDate}}
	if err := on(t, m, "expect refused promote beta\n"); err != nil {
		t.Fatal(err)
	}
	m.refusal = &apiv1.Problem{Code: apiv1.CodeInternal}
	if err := on(t, m, "expect refused promote beta\n"); err == nil {
		t.Fatal("a fault was taken for a refusal")
	}
	m = &made{status: well(), refusal: &apiv1.Problem{Code: apiv1.CodeUnavailable}}
	if err := on(t, m, "promote beta\n"); err == nil || len(m.asked) < 10 {
		t.Fatalf("%v, asked %d times", err, len(m.asked))
	}
}

// Everything that was done is undone at the end.
func TestMend(t *testing.T) {
	m := &made{status: well()}
	steps := "link cut alpha crossover\npower off gamma\npause alpha\ndisk beta slow\npause-sync alpha\ndisconnect beta\n"
	if err := on(t, m, steps); err != nil {
		t.Fatal(err)
	}
	want := "power on gamma,link heal alpha crossover,resume alpha,disk beta heal,kill beta,start beta"
	if got := strings.Join(m.done[4:], ","); got != want {
		t.Errorf("done %s; want %s", got, want)
	}
	if n := len(m.asked); n != 3 || m.asked[2] != "alpha /v1/resources/pg/resume-sync" {
		t.Errorf("asked %q", m.asked)
	}
	m = &made{status: well()}
	if err := on(t, m, "demote alpha\npower off alpha\nkill beta\n"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(m.done[2:], ","); got != "power on alpha,start beta" || m.asked[len(m.asked)-1] != "alpha /v1/resources/pg/promote" {
		t.Errorf("done %s, asked %q", got, m.asked)
	}
}
