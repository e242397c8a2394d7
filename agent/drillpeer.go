package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/peering"
)

// drillPurpose asks the other node to play its part in a drill.
const drillPurpose = "drill"

type (
	drillQuestion struct {
		Resource string `json:"resource"`
		Path     string `json:"path,omitempty"` // close it
		LastsMS  int64  `json:"lasts_ms,omitempty"`
		Agent    bool   `json:"agent,omitempty"` // end as by SIGKILL
		Pause    bool   `json:"pause,omitempty"` // stand still for LastsMS
	}
	drillAnswer struct {
		Refused     *apiv1.Problem `json:"refused,omitempty"`
		BehindBytes int64          `json:"behind_bytes,omitempty"`
		Protocol    string         `json:"protocol,omitempty"`
	}
)

// acceptDrill plays this node's part.
func (a *agent) acceptDrill(c *peering.Conn) {
	defer closeQuietly(c)
	var q drillQuestion
	if err := take(c, exchangeTimeout, &q); err != nil {
		a.log.Warn("a question was not understood", zap.String("peer", c.Node), zap.Error(err))
		return
	}
	r, p := a.shared(c.Node, q.Resource)
	if p == nil {
		p = r.mayPlay(&q)
	}
	if p != nil {
		a.give(c, drillAnswer{Refused: p})
		return
	}
	answer := r.drillAnswer()
	lasts := time.Duration(q.LastsMS) * time.Millisecond
	switch {
	case q.Agent:
		a.event(apiv1.EventOperator, r.name, "drill agent, asked on "+c.Node+": this agent ends as by SIGKILL, and is started again by "+supervisor(os.Getenv))
		a.give(c, answer)
		a.log.Warn("drill: ends by SIGKILL")
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			a.log.Error("drill: not ended", zap.Error(err))
		}
	case q.Pause:
		a.event(apiv1.EventOperator, r.name, fmt.Sprintf("drill pause, asked on %s: this agent stands still for %v", c.Node, lasts))
		a.give(c, answer)
		a.boss.Rest(lasts)
		if err := standStill(a.log, lasts); err != nil {
			a.event(apiv1.EventProblem, r.name, fmt.Sprintf("drill pause: it does not stand still: %v", err))
		}
	default:
		a.give(c, answer)
		a.closePath(c.Node, q.Path, lasts)
	}
}

// drillAnswer says what could be lost now.
func (r *resource) drillAnswer() drillAnswer {
	v := r.mirror.View()
	return drillAnswer{BehindBytes: v.BehindBytes, Protocol: v.Protocol.String()}
}

// standStill has this process stopped for a while. A shell, which is not stopped
// with it, wakes it again; it is in a session of its own, so that no signal to this
// one's group ends it before.
func standStill(log *zap.Logger, lasts time.Duration) error {
	c := exec.Command("/bin/sh", "-c", `kill -STOP "$1" && sleep "$2"; kill -CONT "$1"`, "sh", strconv.Itoa(os.Getpid()), strconv.FormatFloat(lasts.Seconds(), 'f', 3, 64))
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	go func() {
		if err := c.Wait(); err != nil {
			log.Warn("drill: the shell that stopped and woke this agent", zap.Error(err))
		}
	}()
	return nil
}

// mayPlay judges what is asked of this node by itself: who leads has looked at
// the rest. So it is judged as one without victim and path.
func (r *resource) mayPlay(q *drillQuestion) *apiv1.Problem {
	refuse := func(format string, args ...any) *apiv1.Problem {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: r.a.self + ": " + fmt.Sprintf(format, args...), Hint: "hactl status " + r.name + " on " + r.a.self}
	}
	s := (&drill{r: r}).sight()
	lasts := time.Duration(q.LastsMS) * time.Millisecond
	switch {
	case r.a.drilling.Load():
		return refuse("it leads a drill itself")
	case (q.Agent || q.Pause) && s.primary != r.a.self:
		return refuse("not Primary any more")
	case q.Pause && r.a.dog.bites() != 0 && r.a.dog.bites() <= lasts:
		return refuse("its watchdog resets the machine when it is not petted for %v: ask for fewer seconds than that", r.a.dog.bites())
	case q.Agent && supervisor(os.Getenv) == "":
		return refuse("nothing would start its agent again: it does not run under systemd with Restart=, nor does %s name who does", supervisorVariable)
	case !q.Agent && (lasts <= 0 || lasts > drillSecondsMax*time.Second):
		return refuse("it does not last %v; at most %d s", lasts, drillSecondsMax)
	case !q.Agent && !q.Pause && s.paths[q.Path] == "":
		return refuse("there is no path %q to %s", q.Path, r.peer)
	}
	return s.obstacle()
}

// closePath closes this end of a path for a while. The deadline is this process's:
// nobody has to come back for it.
func (a *agent) closePath(node, path string, lasts time.Duration) {
	a.event(apiv1.EventOperator, "", fmt.Sprintf("drill: path %s to %s is closed here for %v", path, node, lasts))
	a.heart.Deafen(node, path, true)
	a.net.Shut(node, path)
	time.AfterFunc(lasts, func() {
		a.net.Reopen(node, path)
		a.heart.Deafen(node, path, false)
		a.event(apiv1.EventOperator, "", fmt.Sprintf("drill: path %s to %s is open again here", path, node))
	})
}

// supervisorVariable names, in the environment of an agent, who starts it again
// when it ends, where that is not systemd.
const supervisorVariable = "HAPAIR_SUPERVISED_BY"

// supervisor says who starts this agent again when it is killed, "" for nobody.
func supervisor(getenv func(string) string) string {
	if who := getenv(supervisorVariable); who != "" {
		return who
	}
	if getenv("INVOCATION_ID") == "" {
		return ""
	}
	group, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	unit := unitOf(group)
	if unit == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=Restart", "--value", "--", unit).Output()
	if err != nil || !restarts(string(out)) {
		return ""
	}
	return "systemd (" + unit + ")"
}

// unitOf finds the unit in the words of /proc/self/cgroup.
func unitOf(group []byte) string {
	for line := range bytes.Lines(group) {
		if unit := path.Base(strings.TrimSpace(string(line))); strings.HasSuffix(unit, ".service") {
			return unit
		}
	}
	return ""
}

// restarts reports the values of Restart= that count for a SIGKILL.
func restarts(value string) bool {
	switch strings.TrimSpace(value) {
	case "always", "on-failure", "on-abnormal", "on-abort":
		return true
	}
	return false
}
