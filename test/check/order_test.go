package check

import "testing"

// A log on volume 0 and data on volume 1: the data may not be there without it.
func TestOrderAcrossVolumes(t *testing.T) {
	for _, c := range []struct {
		name               string
		flush, fua, whole  bool
		hasLog, hasData    bool
		forget, logIsZeros bool
		ok                 bool
	}{
		{name: "both", whole: true, hasLog: true, hasData: true, ok: true},
		{name: "the log only", whole: true, hasLog: true, ok: true},
		{name: "neither", whole: true, ok: true},
		{name: "the data only", whole: true, hasData: true},
		{name: "the data only, after a power cut without a flush", hasData: true, ok: true},
		{name: "the data only, after a power cut and a flush", flush: true, hasData: true},
		{name: "the data only, after a power cut, the log by FUA", fua: true, hasData: true},
		{name: "the data only, by a copy that was accepted", whole: true, hasData: true, forget: true, ok: true},
		{name: "zeroes for a log", whole: true, hasData: true, logIsZeros: true, ok: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			hists := []*History{NewHistory(1 << 20), NewHistory(1 << 20)}
			o := NewOrder(hists)
			write := func(volume int, zero bool) Version {
				v := hists[volume].Submit(4096, SectorBytes, zero)
				o.Submit(volume, v)
				return v
			}
			log := write(0, c.logIsZeros)
			hists[0].Acked(log)
			o.Acked(0, log, c.fua)
			if c.flush {
				o.Flushed(0, hists[0].Snapshot())
			}
			data := write(1, false)
			if c.forget {
				o.Forget()
			}
			found := func(volume, _ int) Version {
				if volume == 0 && c.hasLog {
					return log
				}
				if volume == 1 && c.hasData {
					return data
				}
				return 0
			}
			if err := o.Survives(found, c.whole); (err == nil) != c.ok {
				t.Error(err)
			}
		})
	}
}
