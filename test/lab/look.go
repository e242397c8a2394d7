package lab

import (
	"context"
	"sort"
	"strings"
	"time"
)

// View is a node at a glance, in words.
type View struct {
	Power, Agent, Cables string
	Role, Disk, InSync   string // of the lab's resource, by the node itself; "-" when it does not say
}

const lookTimeout = time.Second

// Look looks at a node. An agent that does not answer within a second is said
// not to.
func (l *Lab) Look(ctx context.Context, name string) View {
	v := View{Power: "off", Agent: "-", Cables: "-", Role: "-", Disk: "-", InSync: "-"}
	n, err := l.node(name)
	if err != nil {
		return v
	}
	v.Cables = cables(n)
	if !n.Init.alive() {
		return v
	}
	v.Power = "on"
	if n.Kind == kindClient {
		return v
	}
	v.Agent = l.agentWord(name)
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	s, err := l.Status(ctx, name)
	if err != nil {
		return v
	}
	if r := s.Resource(l.Resource()); r != nil {
		v.InSync = strings.Join(r.InSync, ",")
		if !s.Witness() {
			v.Role, v.Disk = r.Role, r.DiskState
		}
	}
	return v
}

func cables(n *node) string {
	var cut []string
	for path, is := range n.Cut {
		if is {
			cut = append(cut, path+" cut")
		}
	}
	for path, ill := range n.Ill {
		if ill != "" {
			cut = append(cut, path+" "+string(ill))
		}
	}
	sort.Strings(cut)
	if len(cut) == 0 {
		return "whole"
	}
	return strings.Join(cut, ", ")
}

func (l *Lab) agentWord(name string) string {
	p, err := l.agent(name)
	if err != nil {
		return "ended"
	}
	for _, state := range p.threads() {
		if state != "T" && state != "Z" {
			return "runs"
		}
	}
	return "paused"
}
