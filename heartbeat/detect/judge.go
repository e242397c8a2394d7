package detect

import (
	"fmt"
	"slices"
	"time"
)

// judgePath sets the verdict on a path: what the evidence says now, slowed
// down on the way back from the dead.
func (d *Detector) judgePath(x *path) {
	raw, why := d.evident(x)
	switch {
	case raw == Dead:
		if !x.down && x.heard {
			x.deaths = append(x.recentDeaths(d.now), d.now)
			x.down = true
		}
		x.heardSince, x.mending = false, false
	case x.down:
		raw, why = d.mend(x, raw, why)
	}
	why.Path = x.name
	x.state, x.reasons = raw, []Reason{why}
}

// mend brings a path that was dead back: it is dead until it is heard, then
// suspect until it has answered for a while without a gap.
func (d *Detector) mend(x *path, raw State, why Reason) (State, Reason) {
	if !x.heardSince {
		return Dead, Reason{Code: Silent, Text: "not heard since the path was lost"}
	}
	if raw != Alive {
		x.mending = false
		return raw, why
	}
	if !x.mending {
		x.mending, x.mendedAt = true, d.now
	}
	calm := d.calm(x)
	if d.now-x.mendedAt < calm {
		return Suspect, Reason{Code: Recovering, Text: fmt.Sprintf("answers again, must do so for %s", calm)}
	}
	x.down, x.mending = false, false
	return raw, why
}

func (x *path) recentDeaths(now time.Duration) []time.Duration {
	return slices.DeleteFunc(x.deaths, func(at time.Duration) bool { return now-at >= flapWindow })
}

// calm is how long a path that was dead must answer before it counts again. It
// is fixed by the losses known when it last died.
func (d *Detector) calm(x *path) time.Duration {
	return d.cfg.Recover << min(max(len(x.deaths)-1, 0), flapDoubling)
}

// evident is what the evidence on a path says now, without memory of verdicts.
func (d *Detector) evident(x *path) (State, Reason) {
	if code, text, _ := d.local[x.name].fault(); code != "" {
		return Dead, Reason{Code: code, Text: text}
	}
	silence := d.now - x.heardAt
	switch {
	case x.member == gone && x.heard && silence < d.cfg.SuspectAfter:
		return Suspect, Reason{Code: Missed, Text: noted("given up by membership, but heard not long ago", x.note)}
	case x.member == gone:
		return Dead, Reason{Code: Silent, Text: noted("does not answer, given up by membership", x.note)}
	case x.member == left && d.now-x.memberAt >= d.cfg.DeadAfter:
		return Dead, Reason{Code: Left, Text: "said that it leaves, and has not been heard since"}
	case x.member == left:
		return Suspect, Reason{Code: Left, Text: "says that it leaves; a frozen node may say so falsely"}
	case !x.heard && d.now-x.start >= d.cfg.Grace:
		return Dead, Reason{Code: NeverHeard, Text: "never heard since this node began to listen"}
	case !x.heard:
		return Unknown, Reason{Code: NotYetHeard, Text: "not heard yet"}
	case silence >= d.cfg.DeadAfter:
		return Dead, Reason{Code: Silent, Text: fmt.Sprintf("no answer for %s", d.cfg.DeadAfter)}
	case silence >= d.cfg.SuspectAfter:
		return Suspect, Reason{Code: Missed, Text: fmt.Sprintf("no answer for %s", d.cfg.SuspectAfter)}
	case x.member == suspected:
		return Suspect, Reason{Code: Missed, Text: noted("suspected by membership", x.note)}
	}
	return Alive, Reason{Code: Answers, Text: "answers"}
}

// fault is what keeps this node's end of a path from being used, and since when.
func (l *end) fault() (Code, string, time.Duration) {
	switch {
	case l.addressLost.there:
		return NoAddress, noted("this node lost its address on the path", l.addressLost.note), l.addressLost.at
	case l.deviceDown.there:
		return DeviceOff, noted("this node's device is down", l.deviceDown.note), l.deviceDown.at
	case l.noCarrier.there:
		return NoCarrier, noted("no carrier: the cable is out or the peer's box off", l.noCarrier.note), l.noCarrier.at
	}
	return "", "", 0
}

// fresh reports whether the mirror link proves the peer alive: it carried something not
// long ago. Where no path can carry anything from this node's end, what it carried before
// that says nothing: the link goes over the same paths.
func (d *Detector) fresh(p *peer) bool {
	if !p.linkKnown || !p.linkAlive || d.now-p.linkAt >= d.cfg.LinkFresh {
		return false
	}
	for _, x := range p.paths {
		if code, _, since := d.local[x.name].fault(); code == "" || p.linkAt > since {
			return true
		}
	}
	return len(p.paths) == 0
}

func noted(text, note string) string {
	if note == "" {
		return text
	}
	return text + " (" + note + ")"
}

// judgeNode sums the paths and the mirror link up.
func (d *Detector) judgeNode(p *peer) (State, []Reason) {
	fresh := d.fresh(p)
	count := map[State]int{}
	var why []Reason
	ownFaults, ever := 0, p.linkKnown
	for _, x := range p.paths {
		count[x.state]++
		why = append(why, x.reasons...)
		ever = ever || x.heard
		if x.state == Dead && x.reasons[0].Code.own() {
			ownFaults++
		}
	}
	if p.linkKnown && !p.linkAlive {
		why = append(why, Reason{Code: LinkQuiet, Text: noted("the mirror link is silent", p.linkNote)})
	}
	lost := !fresh && len(p.paths) > 0 && count[Dead] == len(p.paths)
	blind := lost && ownFaults == len(p.paths)
	d.countLost(p, lost && !blind)
	switch {
	case fresh:
		return Alive, append([]Reason{{Code: MirrorLink, Text: "the mirror link carries traffic"}}, why...)
	case count[Alive] > 0:
		return Alive, why
	case len(p.paths) == 0:
		return Unknown, append(why, Reason{Code: Disused, Text: "no path to the node is configured"})
	case blind:
		return Suspect, append([]Reason{{Code: Blind, Text: "every path's end on this node is down: nothing can be said of the peer"}}, why...)
	case lost && d.now-p.lostSince >= d.cfg.Confirm:
		return Dead, why
	case lost:
		return Suspect, append([]Reason{{Code: Confirming, Text: fmt.Sprintf("every path is lost, for less than %s", d.cfg.Confirm)}}, why...)
	case count[Suspect] == 0 && !ever:
		return Unknown, why
	}
	return Suspect, why
}

func (d *Detector) countLost(p *peer, lost bool) {
	if lost && !p.lost {
		p.lostSince = d.now
	}
	p.lost = lost
}
