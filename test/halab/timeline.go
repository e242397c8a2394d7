package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"hapair/agent/apiv1"
)

// milestone is one line of the timeline: the first event that fits.
type milestone struct {
	what string
	fits func(apiv1.Event) bool
}

func service(kind string) func(apiv1.Event) bool {
	return func(e apiv1.Event) bool {
		return e.Kind == apiv1.EventService && strings.HasPrefix(e.Fields["service"], kind+":") && e.Fields["now"] == apiv1.ServiceRunning
	}
}

func step(name string) func(apiv1.Event) bool {
	return func(e apiv1.Event) bool {
		return e.Kind == apiv1.EventRole && e.Fields["entry"] == "step" && strings.HasPrefix(e.Text, name)
	}
}

var milestones = []milestone{
	{"loss noticed", func(e apiv1.Event) bool { return e.Kind == apiv1.EventMember || e.Kind == apiv1.EventConnection }},
	{"chosen, with the witness", step("ledger-promote")},
	{"promoted", step("mirror-promote")},
	{"mounted", service("mount")},
	{"service up", service("exec")},
	{"address announced", service("address")},
}

// timeline tells the failover by the survivor's events and the client's clock.
func (d *demo) timeline(ctx context.Context, since uint64, cut, accepted time.Time) error {
	events, err := d.lab.Events(ctx, d.survivor, since)
	if err != nil {
		return err
	}
	line := func(at time.Time, what, why string) {
		d.say("  %+7.3f s  %-25s %s", at.Sub(cut).Seconds(), what, shorten(why))
	}
	line(cut, "power cut", "")
	for _, m := range milestones {
		i := slices.IndexFunc(events, func(e apiv1.Event) bool { return !e.Time.Before(cut) && m.fits(e) })
		if i < 0 {
			d.judge(errors.New("no such event"), "%s", m.what)
			continue
		}
		line(events[i].Time, m.what, events[i].Text)
	}
	line(accepted, "first record accepted", "")
	d.say("")
	return nil
}

const whyRunes = 80

// shorten keeps a line of the timeline a line.
func shorten(text string) string {
	if r := []rune(text); len(r) > whyRunes {
		return string(r[:whyRunes-1]) + "…"
	}
	return text
}
