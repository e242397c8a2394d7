package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"hapair/agent/apiv1"
)

// stages are the shares of an outage, in order, as the new Primary counted them
// and, the first and the last, as seen from outside: all clocks are one machine's.
type stages struct {
	noticed  time.Duration // from the event to the first evidence, or to the operator's word
	detect   time.Duration // to the decision
	ledger   time.Duration // to the ledger's commitment
	lease    time.Duration // to the end of the other's lease
	mirror   time.Duration // to the open device
	services time.Duration // all of them, one after the other
	mount    time.Duration // of that
	address  time.Duration // of that
	heard    time.Duration // to the answer at the client
}

func (s stages) all() []time.Duration {
	return []time.Duration{s.noticed, s.detect, s.ledger, s.lease, s.mirror, s.services, s.mount, s.address, s.heard}
}

var stageNames = []string{"noticed", "detected", "ledger", "lease", "device", "services", "mount", "address", "heard"}

// String is empty when nothing was counted.
func (s stages) String() string {
	if s == (stages{}) {
		return ""
	}
	var parts []string
	for i, d := range s.all() {
		parts = append(parts, fmt.Sprintf("%s %.0f", stageNames[i], millis(d)))
	}
	return strings.Join(parts, ", ")
}

func stageHead() string {
	return "| resource | event | noticed | detected | ledger | lease | device | services | of them: mount | address | heard |\n|---|---|" + strings.Repeat("--:|", len(stageNames))
}

func stageRow(what, event string, acts []act) string {
	cells := make([]string, len(stageNames))
	for i := range cells {
		ms := make([]float64, len(acts))
		for n := range acts {
			ms[n] = millis(acts[n].stages.all()[i])
		}
		cells[i] = fmt.Sprintf("%.0f", spreadOf(ms).median)
	}
	return fmt.Sprintf("| %s | %s | %s |", what, event, strings.Join(cells, " | "))
}

// stages reads them from the flight recorder of whoever is Primary now.
func (t *theatre) stages(ctx context.Context, was string, a *act) (stages, error) {
	for _, node := range t.lab.Data() {
		if node == was {
			continue
		}
		var tl apiv1.Timeline
		since := url.Values{"since": {a.began.UTC().Format(time.RFC3339Nano)}}
		if err := t.lab.Call(ctx, node, http.MethodGet, apiv1.PathTimeline+"?"+since.Encode(), nil, &tl); err != nil {
			return stages{}, err
		}
		return stagesOf(tl.Entries, node, a)
	}
	return stages{}, fmt.Errorf("nobody but %s is there", was)
}

// stagesOf reads them from a timeline.
func stagesOf(entries []apiv1.TimelineEntry, node string, a *act) (s stages, err error) {
	took := func(e *apiv1.TimelineEntry, name string) (d time.Duration) {
		if text, told := e.Fields[name]; told && err == nil {
			d, err = time.ParseDuration(text)
		}
		return d
	}
	promoted := false
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Node != node || promoted:
		case e.Fields["now"] == apiv1.ServiceRunning && strings.HasPrefix(e.Fields["service"], "mount"):
			s.mount += took(e, "took")
		case e.Fields["now"] == apiv1.ServiceRunning && strings.HasPrefix(e.Fields["service"], "address"):
			s.address += took(e, "took")
		case e.Fields["entry"] == "promoted":
			promoted = true
			s.noticed = e.Time.Add(-took(e, "took")).Sub(a.began)
			s.detect, s.ledger, s.lease = took(e, "took_detect"), took(e, "took_ledger"), took(e, "took_lease")
			s.mirror, s.services = took(e, "took_mirror"), took(e, "took_services")
			s.heard = a.outage.end.Sub(e.Time)
			if s.noticed < 0 { // the peer was not trusted yet, after the event before
				s.noticed, s.detect = 0, s.detect+s.noticed
			}
		}
	}
	if err == nil && !promoted {
		err = fmt.Errorf("%s does not tell of its promotion", node)
	}
	return s, err
}
